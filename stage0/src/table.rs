//! Rows of text in columns as wide as their widest cell.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cli::Format;

/// How a command prints what it lists.
#[derive(Clone, Copy, Debug, Args)]
pub struct TableFlags {
    /// No line of titles
    #[arg(long)]
    pub no_legend: bool,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
}

impl TableFlags {
    /// Prints `values` as JSON if that is asked for, else their rows, below the titles.
    ///
    /// # Errors
    /// If stdout is closed, or they cannot be written as JSON.
    pub fn print<Row: AsRef<[String]>>(
        self,
        values: &impl Serialize,
        titles: Row,
        rows: impl Iterator<Item = Row>,
    ) -> Result<()> {
        if let Some(format) = self.format {
            return format.print(values);
        }
        let titles = (!self.no_legend).then_some(titles);
        print(&titles.into_iter().chain(rows).collect::<Vec<_>>())
    }
}

/// Prints the rows on stdout.
fn print<Row: AsRef<[String]>>(rows: &[Row]) -> Result<()> {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.as_ref().get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<_> = row
            .as_ref()
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        crate::print_line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A number of bytes in the largest unit of which there is one, as `1.5MiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal place is shown")]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    match unit {
        0 => format!("{bytes}B"),
        _ => format!(
            "{:.1}{}",
            bytes as f64 / 1024f64.powi(unit.cast_signed()),
            UNITS[unit as usize]
        ),
    }
}

/// A stranger's words, harmless to a terminal.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for each in text.chars() {
        match each.is_control() {
            true => shown.extend(each.escape_default()),
            false => shown.push(each),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_in_the_largest_unit() {
        for (number, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            (1 << 30, "1.0GiB"),
            (u64::MAX, "16777216.0TiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }
}
