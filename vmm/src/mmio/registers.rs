//! The registers of one virtio-mmio device as a pure state machine: what the driver reads, what its writes mean, and
//! nothing of threads, descriptors or KVM. Every value comes from the guest; whatever it does, the answer is defined.
//!
//! Virtio 1.2, sections 4.2.2 (registers), 3.1 (order of initialization), 2.1 (status).

use virtio_queue::{Queue, QueueState};

use super::spec::{self, offset, status};

/// What a write asks of the wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// DRIVER_OK: run the device.
    Activate,
    /// Give everything back as after power-on.
    Reset,
    /// These interrupt bits have been seen.
    Acknowledge(u32),
}

/// What registers show of the running device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live<'a> {
    /// The configuration space.
    pub config: &'a [u8],
    /// InterruptStatus.
    pub interrupt_status: u32,
    /// ConfigGeneration.
    pub config_generation: u32,
    /// DEVICE_NEEDS_RESET.
    pub needs_reset: bool,
}

/// Registers of one device.
pub struct Registers {
    device_id: u32,
    device_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    /// As the driver has set them up.
    queues: Vec<QueueState>,
    status: u32,
}

impl Registers {
    /// Registers as after power-on; VIRTIO_F_VERSION_1 and VIRTIO_F_EVENT_IDX are offered besides `features`.
    pub fn new(device_id: u32, features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            device_id,
            device_features: features | spec::VIRTIO_F_VERSION_1 | spec::VIRTIO_F_EVENT_IDX,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: queue_sizes.iter().copied().map(unused_queue).collect(),
            status: 0,
        }
    }

    /// Features that the driver accepted; final once the device is activated.
    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// The queues as set up; none when size or alignment of one that is ready is not to the specification.
    pub fn build_queues(&self) -> Option<Vec<Queue>> {
        let event_idx_enabled = self.driver_features & spec::VIRTIO_F_EVENT_IDX != 0;
        let build = |queue: &QueueState| {
            let state = match queue.ready {
                true => *queue,
                false => unused_queue(queue.max_size),
            };
            Queue::try_from(QueueState {
                event_idx_enabled,
                ..state
            })
        };
        self.queues.iter().map(|queue| build(queue).ok()).collect()
    }

    /// Fills `data` from `at`. Registers are 32 bits wide; only the configuration space may be read in other widths.
    pub fn read(&self, at: u64, data: &mut [u8], live: Live<'_>) {
        data.fill(0);
        if let Some(start) = at.checked_sub(offset::CONFIG) {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let rest = live.config.get(start..).unwrap_or_default();
            data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        } else if data.len() == 4 {
            data.copy_from_slice(&self.register(at, live).to_le_bytes());
        }
    }

    fn register(&self, at: u64, live: Live<'_>) -> u32 {
        match at {
            offset::MAGIC_VALUE => spec::MAGIC_VALUE,
            offset::VERSION => spec::VERSION,
            offset::DEVICE_ID => self.device_id,
            offset::VENDOR_ID => spec::VENDOR_ID,
            offset::DEVICE_FEATURES => half(self.device_features, self.device_features_sel),
            offset::QUEUE_NUM_MAX => self.queue().map_or(0, |queue| queue.max_size.into()),
            offset::QUEUE_READY => self.queue().map_or(0, |queue| queue.ready.into()),
            offset::INTERRUPT_STATUS => live.interrupt_status,
            offset::STATUS if live.needs_reset => self.status | status::DEVICE_NEEDS_RESET,
            offset::STATUS => self.status,
            // No shared memory region: its length and base are all ones.
            offset::SHM_LEN_LOW..=offset::SHM_BASE_HIGH => u32::MAX,
            offset::CONFIG_GENERATION => live.config_generation,
            _ => 0,
        }
    }

    /// `data` written at `at`. The configuration space is read-only.
    pub fn write(&mut self, at: u64, data: &[u8]) -> Effect {
        let Ok(bytes) = data.try_into() else {
            return Effect::None;
        };
        let value = u32::from_le_bytes(bytes);
        match at {
            offset::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            offset::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            offset::QUEUE_SEL => self.queue_sel = value,
            offset::DRIVER_FEATURES => self.accept_features(value),
            offset::INTERRUPT_ACK => return Effect::Acknowledge(value),
            offset::STATUS => return self.write_status(value),
            _ => self.write_queue(at, value),
        }
        Effect::None
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) == status::DRIVER {
            set_half(&mut self.driver_features, self.driver_features_sel, value);
        }
    }

    /// Queues are set up between FEATURES_OK and DRIVER_OK, and a ready queue is changed no more.
    fn write_queue(&mut self, at: u64, value: u32) {
        if self.status & (status::FEATURES_OK | status::DRIVER_OK) != status::FEATURES_OK {
            return;
        }
        let Some(queue) = usize::try_from(self.queue_sel)
            .ok()
            .and_then(|sel| self.queues.get_mut(sel))
        else {
            return;
        };
        match at {
            offset::QUEUE_READY => queue.ready = value & 1 != 0,
            _ if queue.ready => {}
            // A size that is no u16 becomes 0, with which no queue can be built.
            offset::QUEUE_NUM => queue.size = value.try_into().unwrap_or(0),
            offset::QUEUE_DESC_LOW => set_half(&mut queue.desc_table, 0, value),
            offset::QUEUE_DESC_HIGH => set_half(&mut queue.desc_table, 1, value),
            offset::QUEUE_DRIVER_LOW => set_half(&mut queue.avail_ring, 0, value),
            offset::QUEUE_DRIVER_HIGH => set_half(&mut queue.avail_ring, 1, value),
            offset::QUEUE_DEVICE_LOW => set_half(&mut queue.used_ring, 0, value),
            offset::QUEUE_DEVICE_HIGH => set_half(&mut queue.used_ring, 1, value),
            _ => {}
        }
    }

    /// The driver may only add bits, in order; 0 resets. FEATURES_OK stays clear when the features will not do.
    fn write_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            self.reset();
            return Effect::Reset;
        }
        if value & self.status != self.status {
            return Effect::None;
        }
        let mut added = value & !self.status & !status::DEVICE_NEEDS_RESET;
        if added & status::FEATURES_OK != 0 && !self.features_are_good() {
            added &= !status::FEATURES_OK;
        }
        if (self.status | added) & status::FEATURES_OK == 0 {
            added &= !status::DRIVER_OK;
        }
        self.status |= added;
        if added & status::DRIVER_OK != 0 {
            Effect::Activate
        } else {
            Effect::None
        }
    }

    fn features_are_good(&self) -> bool {
        self.driver_features & !self.device_features == 0
            && self.driver_features & spec::VIRTIO_F_VERSION_1 != 0
    }

    fn reset(&mut self) {
        let sizes: Vec<_> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.device_id, self.device_features, &sizes);
    }

    fn queue(&self) -> Option<&QueueState> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }
}

/// One that the driver has not touched.
fn unused_queue(max_size: u16) -> QueueState {
    QueueState {
        max_size,
        size: max_size,
        ..QueueState::default()
    }
}

/// One of the two 32-bit halves of `value`; 0 for any other.
fn half(value: u64, select: u32) -> u32 {
    let half = match select {
        0 => value,
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0)
}

fn set_half(target: &mut u64, select: u32, value: u32) {
    match select {
        0 => *target = (*target & !u64::from(u32::MAX)) | u64::from(value),
        1 => *target = (*target & u64::from(u32::MAX)) | (u64::from(value) << 32),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use virtio_queue::QueueT;

    use super::*;

    const FEATURE: u64 = 1 << 5;
    const ACKNOWLEDGE: u32 = 1;

    fn registers() -> Registers {
        Registers::new(2, FEATURE, &[128, 64])
    }

    fn read(registers: &Registers, at: u64) -> u32 {
        let mut data = [0; 4];
        registers.read(at, &mut data, Live::default());
        u32::from_le_bytes(data)
    }

    fn write(registers: &mut Registers, at: u64, value: u32) -> Effect {
        registers.write(at, &value.to_le_bytes())
    }

    /// As far as FEATURES_OK, with `features` accepted.
    fn negotiate(registers: &mut Registers, features: u64) {
        write(registers, offset::STATUS, ACKNOWLEDGE);
        write(registers, offset::STATUS, ACKNOWLEDGE | status::DRIVER);
        for select in [0, 1] {
            write(registers, offset::DRIVER_FEATURES_SEL, select);
            write(registers, offset::DRIVER_FEATURES, half(features, select));
        }
        write(
            registers,
            offset::STATUS,
            ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK,
        );
    }

    fn driver_ok(registers: &mut Registers) -> Effect {
        let status = read(registers, offset::STATUS) | status::DRIVER_OK;
        write(registers, offset::STATUS, status)
    }

    #[test]
    fn registers_identify_a_modern_device() {
        let registers = registers();
        assert_eq!(
            read(&registers, offset::MAGIC_VALUE),
            u32::from_le_bytes(*b"virt")
        );
        assert_eq!(read(&registers, offset::VERSION), 2);
        assert_eq!(read(&registers, offset::DEVICE_ID), 2);
        assert_eq!(read(&registers, offset::SHM_LEN_LOW), u32::MAX);
    }

    #[test]
    fn registers_proper_driver_activates_with_its_queue() {
        let mut registers = registers();
        negotiate(&mut registers, spec::VIRTIO_F_VERSION_1 | FEATURE);
        write(&mut registers, offset::QUEUE_SEL, 1);
        write(&mut registers, offset::QUEUE_NUM, 32);
        write(&mut registers, offset::QUEUE_DESC_LOW, 0x1000);
        write(&mut registers, offset::QUEUE_DESC_HIGH, 1);
        write(&mut registers, offset::QUEUE_READY, 1);
        assert_eq!(driver_ok(&mut registers), Effect::Activate);
        let queues = registers.build_queues().unwrap();
        assert!(!queues[0].ready());
        assert_eq!(
            (queues[1].size(), queues[1].desc_table()),
            (32, 0x1_0000_1000)
        );
        assert_eq!(
            registers.driver_features(),
            spec::VIRTIO_F_VERSION_1 | FEATURE
        );
    }

    #[test]
    fn registers_features_not_offered_or_legacy_refuse_features_ok() {
        for features in [0, FEATURE, spec::VIRTIO_F_VERSION_1 | 1 << 50] {
            let mut registers = registers();
            negotiate(&mut registers, features);
            assert_eq!(read(&registers, offset::STATUS) & status::FEATURES_OK, 0);
            assert_eq!(driver_ok(&mut registers), Effect::None);
        }
    }

    #[test]
    fn registers_queue_changes_after_driver_ok_are_ignored() {
        let mut registers = registers();
        negotiate(&mut registers, spec::VIRTIO_F_VERSION_1);
        driver_ok(&mut registers);
        write(&mut registers, offset::QUEUE_READY, 1);
        assert_eq!(read(&registers, offset::QUEUE_READY), 0);
        assert_eq!(driver_ok(&mut registers), Effect::None);
    }

    #[test]
    fn registers_reset_forgets_everything_the_driver_wrote() {
        let mut registers = registers();
        negotiate(&mut registers, spec::VIRTIO_F_VERSION_1);
        write(&mut registers, offset::QUEUE_READY, 1);
        assert_eq!(write(&mut registers, offset::STATUS, 0), Effect::Reset);
        assert_eq!(read(&registers, offset::STATUS), 0);
        assert_eq!(read(&registers, offset::QUEUE_READY), 0);
        assert_eq!(registers.driver_features(), 0);
    }

    #[test]
    fn registers_queue_of_size_zero_odd_or_too_large_cannot_be_built() {
        for size in [0, 3, 256, 0x1_0000] {
            let mut registers = registers();
            negotiate(&mut registers, spec::VIRTIO_F_VERSION_1);
            write(&mut registers, offset::QUEUE_NUM, size);
            assert!(registers.build_queues().is_some(), "size {size}, unused");
            write(&mut registers, offset::QUEUE_READY, 1);
            assert!(registers.build_queues().is_none(), "size {size}");
        }
    }

    #[test]
    fn registers_config_reads_any_width_and_ends_in_zeros() {
        let registers = registers();
        let live = Live {
            config: &[1, 2, 3],
            ..Live::default()
        };
        let mut data = [0xff; 8];
        registers.read(offset::CONFIG + 1, &mut data, live);
        assert_eq!(data, [2, 3, 0, 0, 0, 0, 0, 0]);
        registers.read(u64::MAX, &mut data, live);
        assert_eq!(data, [0; 8]);
    }

    #[test]
    fn registers_show_needs_reset() {
        let mut data = [0; 4];
        registers().read(
            offset::STATUS,
            &mut data,
            Live {
                needs_reset: true,
                ..Live::default()
            },
        );
        assert_eq!(u32::from_le_bytes(data), status::DEVICE_NEEDS_RESET);
    }

    proptest! {
        #[test]
        fn registers_hostile_sequence_activates_only_after_good_features(
            accesses in prop::collection::vec((0u64..0x110, any::<[u8; 4]>(), prop::sample::select(vec![1usize, 2, 4])), 0..200)
        ) {
            let mut registers = registers();
            let mut active = false;
            for (at, value, width) in accesses {
                let at = at & !3;
                let mut data = [0; 8];
                registers.read(at, &mut data[..width], Live::default());
                match registers.write(at, &value[..width]) {
                    Effect::Activate => {
                        prop_assert!(!active);
                        prop_assert_ne!(registers.driver_features() & spec::VIRTIO_F_VERSION_1, 0);
                        prop_assert_eq!(registers.driver_features() & !registers.device_features, 0);
                        active = true;
                    }
                    Effect::Reset => active = false,
                    _ => {}
                }
                let _ = registers.build_queues();
            }
        }
    }
}
