//! A small plot: bars with their figures, as SVG.

use std::fmt::Write as _;
use std::path::Path;

use super::Result;

pub fn bars(title: &str, all: &[(String, f64)], file: &Path) -> Result<()> {
    let most = all.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let height = 40 + 24 * all.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"760\" height=\"{height}\" fill=\"#fff\"/>\n<text x=\"10\" y=\"22\" font-weight=\"bold\">{title}</text>\n"
    );
    for (number, (name, value)) in all.iter().enumerate() {
        let top = 36 + 24 * number;
        let color = if name.contains("wangchuan") { "#1f6f8b" } else { "#b8b8b8" };
        writeln!(
            svg,
            "<text x=\"300\" y=\"{}\" text-anchor=\"end\">{name}</text><rect x=\"308\" y=\"{top}\" width=\"{:.0}\" height=\"18\" \
             fill=\"{color}\"/><text x=\"{:.0}\" y=\"{}\">{value:.0}</text>",
            top + 14,
            value / most * 380.0,
            314.0 + value / most * 380.0,
            top + 14
        )?;
    }
    svg.push_str("</svg>\n");
    std::fs::write(file, svg)?;
    Ok(())
}
