//! Rows of text in columns as wide as their widest cell.

use anyhow::Result;

/// Prints the rows on stdout.
///
/// # Errors
/// If stdout is closed.
pub fn print<Row: AsRef<[String]>>(rows: &[Row]) -> Result<()> {
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
