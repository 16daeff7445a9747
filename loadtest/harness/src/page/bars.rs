//! Bars beside each other, each with its range, as SVG that goes into a page as it is.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::plot::{COLOURS, PlotError, responsive};

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// What stands over it.
    pub(crate) label: String,
    /// How long it is.
    pub(crate) value: f64,
    /// Where its range begins and ends.
    pub(crate) range: (f64, f64),
    /// The series of its colour.
    pub(crate) series: usize,
}

const WIDTH: u32 = 480;
const ROW: u32 = 44;
const AXIS: u32 = 30;
const TEXT: (&str, u32) = ("sans-serif", 14);

/// Draws bars from 0, the first on top. None if there is nothing to draw.
pub(crate) fn bars(bars: &[Bar]) -> Result<Option<String>, PlotError> {
    if bars.is_empty() {
        return Ok(None);
    }
    let size = (WIDTH, ROW * bars.len() as u32 + AXIS);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&root, bars).map_err(|error| PlotError::new(&*error))?;
    }
    Ok(Some(responsive(&svg, size)))
}

fn draw<'a>(
    root: &DrawingArea<SVGBackend<'a>, Shift>,
    bars: &[Bar],
) -> Result<(), Box<dyn std::error::Error + 'a>> {
    let most = bars.iter().map(|bar| bar.value.max(bar.range.1)).fold(0.0, f64::max).max(1e-3);
    let mut chart = ChartBuilder::on(root)
        .margin(6)
        .margin_left(16)
        .x_label_area_size(AXIS - 6)
        .build_cartesian_2d(0.0..most * 1.05, bars.len() as f64..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .x_labels(6)
        .label_style(TEXT)
        .draw()?;
    for (row, bar) in bars.iter().enumerate() {
        let row = row as f64;
        let (top, middle, bottom) = (row + 0.48, row + 0.68, row + 0.88);
        let colour = COLOURS[bar.series % COLOURS.len()];
        let rectangle =
            Rectangle::new([(0.0, top), (bar.value, bottom)], colour.mix(0.75).filled());
        chart.draw_series([rectangle])?;
        let (least, most) = bar.range;
        let whisker = |points: [(f64, f64); 2]| PathElement::new(points, BLACK.stroke_width(1));
        let ends = [least, most].map(|end| whisker([(end, top + 0.1), (end, bottom - 0.1)]));
        chart.draw_series(ends)?;
        chart.draw_series([whisker([(least, middle), (most, middle)])])?;
        chart.draw_series([Text::new(bar.label.clone(), (0.0, row + 0.08), TEXT)])?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_their_labels_and_ranges() {
        let bar = |label: &str, value: f64| Bar {
            label: label.to_owned(),
            value,
            range: (value * 0.9, value * 1.1),
            series: 0,
        };
        let svg = bars(&[bar("a < b", 5.0), bar("second", 0.0)]).expect("drawn").expect("bars");
        assert!(svg.starts_with("<svg viewBox=\"0 0 480 118\""), "{}", &svg[..60]);
        assert!(svg.contains("a &lt; b") && svg.contains("second") && svg.contains("<polyline"));
        assert!(bars(&[]).expect("nothing").is_none());
    }
}
