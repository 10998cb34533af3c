//! The device through real queues and sockets, driven by a small driver of the guest's side.

mod conversation;
mod driver;
mod hostile;
mod streams;
