//! A small plot: numbers in, one SVG element out.
//!
//! A [`Plot`] is drawn twice, wide for a desk and narrow for a phone, so that letters keep their size; the page's style
//! shows one of them. Colours are classes (`k`, `l`, `r`, `m`), so that light and dark are the style's, too. Every SVG has
//! a title and a description for those who do not see it; the numbers stand in a table beside it.

use super::escape::escape;

/// The most points of one line: more than a screen has columns.
pub const POINTS_MAX: usize = 2_000;

/// How values are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Each factor takes as much room; values below the least are drawn at it.
    Log,
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// From here.
    pub min: f64,
    /// To here.
    pub max: f64,
    /// How.
    pub scale: Scale,
    /// Where something is written, and what.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.min, self.max);
        match self.scale {
            Scale::Linear => (value - self.min) / (self.max - self.min),
            Scale::Log => (value / self.min).ln() / (self.max / self.min).ln(),
        }
    }
}

/// The colour of a layer: the page's style gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Kalends.
    Kalends,
    /// The replaced service, or what goes wrong.
    Legacy,
    /// Kalends under another setting.
    Raised,
    /// What is less important.
    Muted,
}

impl Tone {
    /// The class in the page's style.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Tone::Kalends => "k",
            Tone::Legacy => "l",
            Tone::Raised => "r",
            Tone::Muted => "m",
        }
    }
}

/// Something drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// A stretch of the horizontal axis, over the whole height.
    Band {
        /// From here.
        from: f64,
        /// To here.
        to: f64,
        /// What it is.
        label: String,
    },
    /// A line.
    Line {
        /// Its colour.
        tone: Tone,
        /// Through these.
        points: Vec<(f64, f64)>,
        /// With a dot at each.
        dots: bool,
        /// Broken.
        dashed: bool,
    },
    /// What lies between two lines.
    Range {
        /// Its colour.
        tone: Tone,
        /// Where, from, to.
        points: Vec<(f64, f64, f64)>,
    },
}

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Unique in its page; letters, digits and dashes.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// What there is to see, in words.
    pub description: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// From the back to the front.
    pub layers: Vec<Layer>,
}

/// The room around the plot, in units of the drawing.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 40.0;

/// A drawing's size.
struct Size {
    name: &'static str,
    width: f64,
    height: f64,
}

const SIZES: [Size; 2] = [
    Size {
        name: "wide",
        width: 760.0,
        height: 300.0,
    },
    Size {
        name: "narrow",
        width: 360.0,
        height: 260.0,
    },
];

impl Plot {
    /// Both drawings.
    ///
    /// # Panics
    /// If a line has more than [`POINTS_MAX`] points.
    #[must_use]
    pub fn render(&self) -> String {
        SIZES.iter().map(|size| self.draw(size)).collect()
    }

    fn draw(&self, size: &Size) -> String {
        let Size {
            name,
            width,
            height,
        } = size;
        let id = format!("{}-{name}", escape(&self.id));
        let mut svg = format!(
            "<svg class=\"plot {name}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n",
            escape(&self.title),
            escape(&self.description)
        );
        let x = |value: f64| LEFT + self.x.place(value) * (width - LEFT - RIGHT);
        let y = |value: f64| height - BOTTOM - self.y.place(value) * (height - TOP - BOTTOM);
        let (left, right) = (LEFT, width - RIGHT);
        let (top, bottom) = (TOP, height - BOTTOM);
        let bands = self.layers.iter().filter_map(|layer| match layer {
            Layer::Band { from, to, label } => Some((from, to, label)),
            _ => None,
        });
        let bands: Vec<_> = bands.collect();
        let bands_all = bands.len();
        for (number, (from, to, label)) in bands.into_iter().enumerate() {
            let (from, to) = (x(*from), x(*to));
            let wide = (to - from).max(2.0);
            svg.push_str(&format!(
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{:.1}\"><title>{}</title></rect>\n",
                bottom - top,
                escape(label)
            ));
            // On a phone there is no room for words: a number, and the legend says what it is.
            let text = if *name == "wide" || bands_all == 1 {
                label.clone()
            } else {
                (number + 1).to_string()
            };
            svg.push_str(&format!(
                "<text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                ((from + to) / 2.0).clamp(left + 30.0, right - 30.0),
                top - 10.0,
                escape(&text)
            ));
        }
        svg.push_str(&format!(
            "<text class=\"label\" x=\"0\" y=\"{:.1}\">{}</text>\n",
            12.0,
            escape(&self.y.label)
        ));
        for (value, text) in &self.y.ticks {
            let place = y(*value);
            svg.push_str(&format!(
                "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{place:.1}\" x2=\"{right:.1}\" y2=\"{place:.1}\"/>\n\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                left - 6.0,
                place + 4.0,
                escape(text)
            ));
        }
        let every = if *name == "wide" { 1 } else { 2 };
        for (number, (value, text)) in self.x.ticks.iter().enumerate() {
            if number % every != 0 && self.x.ticks.len() > 6 {
                continue;
            }
            svg.push_str(&format!(
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                x(*value),
                bottom + 17.0,
                escape(text)
            ));
        }
        for layer in &self.layers {
            svg.push_str(&draw_layer(layer, &x, &y));
        }
        svg.push_str(&format!(
            "<line class=\"axis\" x1=\"{left:.1}\" y1=\"{bottom:.1}\" x2=\"{right:.1}\" y2=\"{bottom:.1}\"/>\n\
             <text class=\"label\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n</svg>\n",
            height - 6.0,
            escape(&self.x.label)
        ));
        svg
    }
}

fn draw_layer(layer: &Layer, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    match layer {
        Layer::Band { .. } => String::new(),
        Layer::Line {
            tone,
            points,
            dots,
            dashed,
        } => {
            assert!(points.len() <= POINTS_MAX, "a line that a screen can show");
            let class = tone.class();
            let dash = if *dashed { " dashed" } else { "" };
            let mut svg = format!("<path class=\"line {class}{dash}\" d=\"");
            for (number, (px, py)) in points.iter().enumerate() {
                let sign = if number == 0 { 'M' } else { 'L' };
                svg.push_str(&format!("{sign}{:.1} {:.1}", x(*px), y(*py)));
            }
            svg.push_str("\"/>\n");
            for (px, py) in points.iter().filter(|_| *dots) {
                svg.push_str(&format!(
                    "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>\n",
                    x(*px),
                    y(*py)
                ));
            }
            svg
        }
        Layer::Range { tone, points } => {
            assert!(points.len() <= POINTS_MAX, "an area that a screen can show");
            let there = points.iter().map(|(px, low, _)| (px, low));
            let back = points.iter().rev().map(|(px, _, high)| (px, high));
            let mut svg = format!("<path class=\"area {}\" d=\"", tone.class());
            for (number, (px, py)) in there.chain(back).enumerate() {
                let sign = if number == 0 { 'M' } else { 'L' };
                svg.push_str(&format!("{sign}{:.1} {:.1}", x(*px), y(*py)));
            }
            svg.push_str("Z\"/>\n");
            svg
        }
    }
}

/// Bars to the right, one below the other: what, its parts. Each part has a colour and a value of `most`.
#[must_use]
pub fn bars(
    id: &str,
    title: &str,
    description: &str,
    most: f64,
    rows: &[(String, Vec<(Tone, u64)>)],
) -> String {
    SIZES
        .iter()
        .map(|size| draw_bars(size, id, title, description, most, rows))
        .collect()
}

fn draw_bars(
    size: &Size,
    id: &str,
    title: &str,
    description: &str,
    most: f64,
    rows: &[(String, Vec<(Tone, u64)>)],
) -> String {
    const BAR: f64 = 14.0;
    const HEAD: f64 = 20.0;
    const GAP: f64 = 14.0;
    /// For the number behind the bar.
    const NUMBER: f64 = 40.0;
    let parts: usize = rows.iter().map(|(_, parts)| parts.len()).sum();
    let height = rows.len() as f64 * (HEAD + GAP) + parts as f64 * (BAR + 3.0);
    let id = format!("{}-{}", escape(id), size.name);
    let mut svg = format!(
        "<svg class=\"plot {}\" viewBox=\"0 0 {} {height:.0}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\n\
         <title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n",
        size.name,
        size.width,
        escape(title),
        escape(description)
    );
    let mut top = 0.0;
    for (what, parts) in rows {
        svg.push_str(&format!(
            "<text class=\"what\" x=\"0\" y=\"{:.1}\">{}</text>\n",
            top + HEAD - 6.0,
            escape(what)
        ));
        top += HEAD;
        for (tone, value) in parts {
            let width = (*value as f64 / most).min(1.0) * (size.width - NUMBER);
            let class = tone.class();
            svg.push_str(&format!(
                "<rect class=\"bar {class}\" x=\"0\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\n\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{value}</text>\n",
                width.max(2.0),
                width + 8.0,
                top + BAR - 3.0
            ));
            top += BAR + 3.0;
        }
        top += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}
