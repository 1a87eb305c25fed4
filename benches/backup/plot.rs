//! The picture in `benches/backup.svg`: bytes and processor time of each tool in each step.

use std::fmt::Write as _;

use super::{Figures, Result};

const STEPS: [&str; 5] = ["full", "nothing changed", "1 % appended", "1 % changed, scattered", "5 % deleted"];
const COLOURS: [&str; 7] = ["#1b6ca8", "#4a90c2", "#8fbcdb", "#8c8c8c", "#c9772b", "#a8452f", "#6b8e4e"];
const LEFT: f64 = 250.0;
const WIDTH: f64 = 420.0;
const BAR: f64 = 13.0;

/// Writes it.
pub fn write(figures: &Figures, customers: u32) -> Result<()> {
    let mut tools: Vec<&String> = Vec::new();
    for (_, tool, _) in figures.iter().filter(|(step, ..)| STEPS.contains(step)) {
        if !tools.contains(&tool) {
            tools.push(tool);
        }
    }
    let mut drawn = String::new();
    let mut at = 60.0;
    for step in STEPS {
        let _ = writeln!(drawn, r#"<text x="8" y="{:.0}" font-weight="bold">{step}</text>"#, at + 10.0);
        for (number, tool) in tools.iter().enumerate() {
            let Some((.., cost)) = figures.iter().find(|(known, by, _)| *known == step && by == *tool) else {
                continue;
            };
            at += BAR + 2.0;
            let colour = COLOURS[number % COLOURS.len()];
            let name = tool.replace('&', "&amp;");
            let _ = writeln!(drawn, r#"<text x="{}" y="{:.0}" text-anchor="end">{name}</text>"#, LEFT - 6.0, at + 10.0);
            let panels = [
                (cost.bytes as f64 / 1e6, most(figures, |cost| cost.bytes as f64 / 1e6)),
                (cost.client, most(figures, |cost| cost.client)),
            ];
            for (panel, (value, most)) in panels.into_iter().enumerate() {
                let x = LEFT + panel as f64 * (WIDTH + 70.0);
                let width = (value / most * WIDTH).max(0.5);
                let _ = writeln!(
                    drawn,
                    r#"<rect x="{x:.0}" y="{at:.0}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#
                );
                let _ = writeln!(drawn, r#"<text x="{:.0}" y="{:.0}">{value:.1}</text>"#, x + width + 4.0, at + 10.0);
            }
        }
        at += BAR + 14.0;
    }
    let (width, height) = (LEFT + 2.0 * (WIDTH + 70.0), at + 10.0);
    let titles = format!(
        "<text x=\"{LEFT}\" y=\"40\" font-weight=\"bold\">MB stored</text><text x=\"{}\" y=\"40\" font-weight=\"bold\">\
         processor seconds of the client</text><text x=\"8\" y=\"20\">{customers} customers with 30 rows each</text>",
        LEFT + WIDTH + 70.0
    );
    let whole = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{titles}\n{drawn}</svg>\n"
    );
    Ok(std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/backup.svg"), whole)?)
}

/// The highest value of a figure in all steps.
fn most(figures: &Figures, of: impl Fn(&super::measure::Cost) -> f64) -> f64 {
    figures.iter().filter(|(step, ..)| STEPS.contains(step)).map(|(.., cost)| of(cost)).fold(0.001, f64::max)
}
