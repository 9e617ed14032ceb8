//! Plots, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::experiment::Plot;

const SIZE: (u32, u32) = (860, 420);

/// Of the chart; what is left of the width is the legend's.
const CHART_WIDTH: u32 = 660;
const ROW_HEIGHT: i32 = 22;

/// Colours that the colour-blind can tell apart: Okabe and Ito's.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    BLACK,
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
        let (chart_area, legend) = area.split_horizontally(CHART_WIDTH);
        let mut builder = ChartBuilder::on(&chart_area);
        builder
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64);
        // The two kinds of axes are types of their own, so the rest is written for both.
        macro_rules! draw {
            ($y:expr, $labels:expr) => {{
                let mut chart = builder.build_cartesian_2d(x.0..x.1, $y)?;
                chart
                    .configure_mesh()
                    .x_desc(self.x)
                    .y_desc(self.y)
                    .y_labels($labels)
                    .x_label_formatter(&short)
                    .y_label_formatter(&short)
                    .light_line_style(BLACK.mix(0.05))
                    .draw()?;
                for ((_, points), colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
                    let style = colour.stroke_width(2);
                    chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
                }
            }};
        }
        if self.log_y {
            draw!((decade_below(y.0.max(0.1))..y.1 * 1.25).log_scale(), 20);
        } else {
            draw!(0.0..y.1 * 1.1, 10);
        }
        let rows = (0..).map(|row| 60 + row * ROW_HEIGHT);
        for (((name, _), colour), y) in self.curves.iter().zip(COLOURS.iter().cycle()).zip(rows) {
            let line = vec![(4, y), (24, y)];
            legend.draw(&PathElement::new(line, colour.stroke_width(2)))?;
            let label = Text::new(name.as_str(), (32, y - 6), ("sans-serif", 13));
            legend.draw(&label)?;
        }
        area.present()?;
        Ok(())
    }
}

/// No digits that say nothing: `1000`, `0.5`.
fn short(value: &f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    rounded.to_string()
}

/// Where the labels of a logarithmic axis begin.
fn decade_below(value: f64) -> f64 {
    10_f64.powf(value.log10().floor())
}

/// From the least to the greatest, and never empty.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low < high { (low, high) } else { (0.0, 1.0) }
}
