//! Plots, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::experiment::Plot;

const SIZE: (u32, u32) = (760, 420);

/// Colours that the colour-blind can tell apart: Okabe and Ito's.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

impl Plot {
    /// Writes the plot to a file in `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let path = folder.join(format!("{}.svg", self.name));
        let points = || self.curves.iter().flat_map(|(_, points)| points);
        let x = span(points().map(|point| point.0));
        let y = span(points().map(|point| point.1));
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64);
        // The two kinds of axes are types of their own, so the rest is written for both.
        macro_rules! draw {
            ($y:expr) => {{
                let mut chart = builder.build_cartesian_2d(x.0..x.1, $y)?;
                chart
                    .configure_mesh()
                    .x_desc(self.x)
                    .y_desc(self.y)
                    .light_line_style(BLACK.mix(0.05))
                    .draw()?;
                for ((name, points), colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
                    let style = colour.stroke_width(2);
                    chart
                        .draw_series(LineSeries::new(points.iter().copied(), style))?
                        .label(name)
                        .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
                }
                chart
                    .configure_series_labels()
                    .background_style(WHITE.mix(0.8))
                    .border_style(BLACK.mix(0.3))
                    .position(SeriesLabelPosition::UpperLeft)
                    .draw()?;
            }};
        }
        if self.log_y {
            draw!((y.0.max(0.1) * 0.8..y.1 * 1.25).log_scale());
        } else {
            draw!(0.0..y.1 * 1.1);
        }
        area.present()?;
        Ok(())
    }
}

/// From the least to the greatest, and never empty.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low < high { (low, high) } else { (0.0, 1.0) }
}
