//! A terminal as a picture: each line appears when it appeared, and the whole stays. Without animation, as where a reader has
//! switched it off, everything is seen at once.

use std::{fmt::Write as _, time::Duration};

/// Letters of a line; longer ones are cut.
pub(super) const COLUMNS: usize = 100;
const FONT_PX: f64 = 14.0;
const LETTER_PX: f64 = 8.43;
const LINE_PX: f64 = 19.0;
const MARGIN_PX: f64 = 16.0;

/// A line of the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When it appears.
    pub(super) at: Duration,
    pub(super) text: String,
}

/// The picture.
#[allow(clippy::cast_precision_loss, reason = "a picture has few lines")]
pub(super) fn draw(lines: &[Line]) -> String {
    let width = COLUMNS as f64 * LETTER_PX + 2.0 * MARGIN_PX;
    let height = lines.len() as f64 * LINE_PX + 2.0 * MARGIN_PX;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"A terminal: cargo xtask demo starts a cluster, and requests are answered\">\n\
         <style>\n\
         text {{ font: {FONT_PX}px ui-monospace, monospace; fill: #d8dee9; white-space: pre; }}\n\
         .c {{ fill: #a3be8c; }}\n\
         .x {{ fill: #81a1c1; }}\n\
         @keyframes show {{ from {{ opacity: 0; }} to {{ opacity: 1; }} }}\n\
         @media (prefers-reduced-motion: no-preference) {{ text {{ animation: show 0.1s both; }} }}\n\
         </style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#22272e\"/>\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let y = MARGIN_PX + FONT_PX + index as f64 * LINE_PX;
        let class = match line.text.get(..2) {
            Some("$ ") => " class=\"c\"",
            _ if line.text.starts_with("xtask: ") => " class=\"x\"",
            _ => "",
        };
        // Writing into a text cannot fail.
        writeln!(
            svg,
            "<text x=\"{MARGIN_PX}\" y=\"{y}\"{class} style=\"animation-delay: {:.1}s\">{}</text>",
            line.at.as_secs_f64(),
            escaped(&line.text)
        )
        .ok();
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    let visible: String = text
        .chars()
        .filter(|letter| !letter.is_control())
        .take(COLUMNS)
        .collect();
    visible
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_texts_that_appear_in_time() {
        let line = |at, text: &str| Line {
            at: Duration::from_millis(at),
            text: text.to_owned(),
        };
        let svg = draw(&[line(0, "$ a <b>"), line(1500, "\u{1b}c & d")]);
        assert!(svg.contains("class=\"c\" style=\"animation-delay: 0.0s\">$ a &lt;b&gt;</text>"));
        assert!(svg.contains("style=\"animation-delay: 1.5s\">c &amp; d</text>"));
        assert!(svg.ends_with("</svg>\n"));
    }
}
