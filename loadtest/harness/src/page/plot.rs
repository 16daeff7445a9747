//! Lines over an axis, as SVG that goes into a page as it is.

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// A plot that could not be drawn: a fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("a plot cannot be drawn: {0}")]
pub struct PlotError(String);

impl PlotError {
    pub(super) fn new(error: &dyn std::error::Error) -> Self {
        Self(error.to_string())
    }
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Instants that stand in a plot as vertical lines, in the colour of [`mark_colour`].
#[derive(Clone, Debug)]
pub(super) struct Marks {
    pub(super) at: Vec<f64>,
}

/// What the axes say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes {
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    /// Latencies span many powers of ten.
    pub(super) is_log: bool,
    /// The horizontal axis shows percentiles: see [`tail`].
    pub(super) is_percentile: bool,
}

/// On a phone a plot is as wide as the screen: its text must still be readable.
const SIZE: (u32, u32) = (480, 300);
const TEXT: (&str, u32) = ("sans-serif", 13);
/// Told apart by people who see colours differently (Okabe and Ito).
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// The colour of the marks with this index. From the other end than lines have theirs.
pub(super) fn mark_colour(index: usize) -> RGBColor {
    COLOURS[COLOURS.len() - 1 - index % COLOURS.len()]
}

/// Where a percentile lies on an axis that gives each further nine the same room: 90 is at 1, 99 at 2.
pub(super) fn tail(percent: f64) -> f64 {
    -(1.0 - percent.min(99.9999) / 100.0).log10()
}

/// Draws lines; those without points are left out, and marks beside them. None if there is nothing to draw.
pub(super) fn lines(
    lines: &[Line],
    marks: &[Marks],
    axes: Axes,
) -> Result<Option<String>, PlotError> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MIN, f64::max);
    let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MAX, f64::min);
    if points().next().is_none() {
        return Ok(None);
    }
    let (x, y) = (least(|point| point.0)..most(|point| point.0), most(|point| point.1));
    // An axis of no length cannot be drawn.
    let x = x.start..x.end.max(x.start + 1e-3);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let outcome = if axes.is_log {
            let bottom = least(|point| point.1).max(1e-3);
            let y = bottom * 0.8..y.max(bottom) * 1.3;
            let ends = (y.start, y.end);
            draw(&root, lines, (marks, ends), axes, x, y.log_scale())
        } else {
            let y = 0.0..y.max(1e-3) * 1.1;
            let ends = (y.start, y.end);
            draw(&root, lines, (marks, ends), axes, x, y)
        };
        outcome.map_err(|error| PlotError::new(&*error))?;
    }
    Ok(Some(responsive(&svg, SIZE)))
}

fn draw<'a, Y>(
    root: &DrawingArea<SVGBackend<'a>, Shift>,
    lines: &[Line],
    (marks, ends): (&[Marks], (f64, f64)),
    axes: Axes,
    x: std::ops::Range<f64>,
    y: Y,
) -> Result<(), Box<dyn std::error::Error + 'a>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut builder = ChartBuilder::on(root);
    builder.margin(6).x_label_area_size(38).y_label_area_size(58);
    let mut chart: ChartContext<'_, _, Cartesian2d<RangedCoordf64, Y::CoordDescType>> =
        builder.build_cartesian_2d(x.clone(), y)?;
    let percentile = |x: &f64| {
        let percent = 100.0 - 10f64.powf(2.0 - x);
        format!("{percent}")
    };
    let plain = |x: &f64| format!("{x:.0}");
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_labels(6)
        .label_style(TEXT)
        .axis_desc_style(TEXT)
        .x_label_formatter(if axes.is_percentile { &percentile } else { &plain })
        .draw()?;
    for (index, marks) in marks.iter().enumerate() {
        let style = mark_colour(index).mix(0.6).stroke_width(1);
        let inside = marks.at.iter().filter(|at| x.contains(at));
        let posts = inside.map(|at| PathElement::new(vec![(*at, ends.0), (*at, ends.1)], style));
        chart.draw_series(posts)?;
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        if line.points.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.7))
        .label_font(TEXT)
        .draw()?;
    root.present()?;
    Ok(())
}

/// The library gives a size in pixels; a page wants to scale it.
pub(super) fn responsive(svg: &str, (width, height): (u32, u32)) -> String {
    let fixed = format!("width=\"{width}\" height=\"{height}\" ");
    svg.replacen(&fixed, "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXES: Axes = Axes { x: "s", y: "ms", is_log: true, is_percentile: false };

    #[test]
    fn lines_become_svg_that_scales() {
        let line = Line { name: "p99".to_owned(), points: vec![(0.0, 1.0), (1.0, 100.0)] };
        for axes in [AXES, Axes { is_log: false, is_percentile: true, ..AXES }] {
            let svg =
                lines(std::slice::from_ref(&line), &[], axes).expect("drawn").expect("points");
            assert!(svg.starts_with("<svg viewBox=\"0 0 480 300\""), "{}", &svg[..60]);
            assert!(svg.contains("<polyline") && svg.contains("p99"));
        }
    }

    #[test]
    fn marks_stand_where_they_were() {
        let line = Line { name: "p99".to_owned(), points: vec![(0.0, 1.0), (10.0, 100.0)] };
        let marks = Marks { at: vec![5.0, 50.0] };
        let plain = lines(std::slice::from_ref(&line), &[], AXES).expect("drawn").expect("points");
        let marked = lines(&[line], &[marks], AXES).expect("drawn").expect("points");
        let posts = |svg: &str| svg.matches("<polyline").count();
        // One is inside the axis.
        assert_eq!(posts(&marked), posts(&plain) + 1);
    }

    #[test]
    fn no_points_no_plot_and_one_point_no_failure() {
        assert!(lines(&[], &[], AXES).expect("nothing").is_none());
        for value in [0.0, 5.0] {
            let line = Line { name: "x".to_owned(), points: vec![(3.0, value)] };
            assert!(lines(&[line], &[], AXES).expect("drawn").is_some());
        }
    }

    #[test]
    fn each_nine_has_the_same_room() {
        for (percent, at) in [(0.0, 0.0), (90.0, 1.0), (99.0, 2.0), (99.9, 3.0)] {
            assert!((tail(percent) - at).abs() < 1e-9, "{percent}");
        }
        assert!(tail(100.0).is_finite());
    }
}
