//! Rows of text in columns as wide as their widest cell.

use anyhow::Result;

/// Prints the rows on stdout.
///
/// # Errors
/// If stdout is closed.
pub fn print<const N: usize>(rows: &[[String; N]]) -> Result<()> {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        crate::print_line(cells.join("  ").trim_end())?;
    }
    Ok(())
}
