//! A table of numbers as shades, with few marks: each shade is one path of strokes along the rows.

use super::html::{Html, html};

/// How many shades there are beside the ground.
const SHADES: usize = 8;

/// Where a raster lies, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Rows of equally many numbers, from 0 (the ground) to 1, from the top down. What is no number is the ground.
pub(super) fn raster(rows: &[Vec<f32>], frame: Frame) -> Html {
    let columns = rows.first().map_or(0, Vec::len);
    if columns == 0 {
        return Html::new();
    }
    let shade =
        |value: f32| if value.is_finite() { (value.clamp(0.0, 1.0) * SHADES as f32).round() as usize } else { 0 };
    let mut paths = vec![Html::new(); SHADES + 1];
    for (y, row) in rows.iter().enumerate() {
        let shades: Vec<usize> = row.iter().map(|&value| shade(value)).collect();
        let mut x = 0;
        for run in shades.chunk_by(|a, b| a == b) {
            paths[run[0]] += html!("M{} {}h{}", x, y, run.len());
            x += run.len();
        }
    }
    let path = |(shade, path): (usize, Html)| match path.is_empty() {
        true => path,
        false => html!("<path d=\"{}\" stroke-opacity=\"{:.3}\"/>\n", path, shade as f64 / SHADES as f64),
    };
    let paths: Html = paths.into_iter().enumerate().skip(1).map(path).collect();
    let (across, down) = (frame.width / columns as f64, frame.height / rows.len() as f64);
    html!(
        "<g class=\"raster\" transform=\"translate({:.2} {:.2}) scale({:.4} {:.4})\">\n{}</g>\n",
        frame.left,
        // A stroke lies on both sides of its line.
        frame.top + down / 2.0,
        across,
        down,
        paths
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shades of a raster, read off its paths.
    fn drawn(svg: &str, rows: usize, columns: usize) -> Vec<Vec<f64>> {
        let mut found = vec![vec![0.0; columns]; rows];
        for path in svg.split("<path d=\"M").skip(1) {
            let (strokes, rest) = path.split_once('"').unwrap();
            let opacity: f64 = rest.split('"').nth(1).unwrap().parse().unwrap();
            for stroke in strokes.split('M') {
                let numbers: Vec<usize> = stroke.split([' ', 'h']).map(|n| n.parse().unwrap()).collect();
                found[numbers[1]][numbers[0]..numbers[0] + numbers[2]].fill(opacity);
            }
        }
        found
    }

    #[test]
    fn every_number_has_its_shade() {
        let rows: Vec<Vec<f32>> =
            (0..5).map(|y| (0..40).map(|x| (x * x + 7 * y) as f32 % 41.0 / 40.0).collect()).collect();
        let svg = raster(&rows, Frame { left: 1.0, top: 2.0, width: 80.0, height: 20.0 });
        assert!(svg.contains("translate(1.00 4.00) scale(2.0000 4.0000)"), "{svg}");
        for (row, drawn) in rows.iter().zip(drawn(&svg, 5, 40)) {
            for (&value, drawn) in row.iter().zip(drawn) {
                assert!((f64::from(value) - drawn).abs() <= 0.5 / SHADES as f64 + 1e-6, "{value} {drawn}");
            }
        }
        // As many paths as shades, however many numbers.
        assert!(svg.matches("<path").count() <= SHADES);
    }

    #[test]
    fn what_is_no_number_is_the_ground() {
        let frame = Frame { left: 0.0, top: 0.0, width: 4.0, height: 1.0 };
        let svg = raster(&[vec![f32::NAN, f32::INFINITY, 2.0, -1.0]], frame);
        assert_eq!(drawn(&svg, 1, 4), [[0.0, 0.0, 1.0, 0.0]]);
        assert!(raster(&[], frame).is_empty() && raster(&[vec![]], frame).is_empty());
    }
}
