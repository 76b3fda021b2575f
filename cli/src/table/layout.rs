//! Lays a table out in the width of the terminal. No field is broken: columns that have no room are left out, least important
//! first, and the text of the last column continues on further lines.

use std::fmt::Write;

/// Space between columns.
const GAP: usize = 2;
/// The last column moves below its row where fewer columns than this remain for it.
const MIN_TEXT_COLUMNS: usize = 24;
/// A last column that is at most this wide is never continued.
const MAX_SHORT_COLUMNS: usize = 8;
/// Indentation of a last column that stands below its row.
const INDENT: usize = 4;

/// A colour, as its number among ANSI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Color {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// A field of a row.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    color: Option<Color>,
}

impl Cell {
    pub(super) fn new(text: impl ToString) -> Self {
        Self {
            text: printable(&text.to_string()),
            color: None,
        }
    }

    pub(super) fn colored(text: impl ToString, color: Color) -> Self {
        Self {
            color: Some(color),
            ..Self::new(text)
        }
    }
}

/// What comes from elsewhere must not control the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A column's name, and how soon it is left out: the largest first, 0 never.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) expendable: u8,
}

/// Rows of fields; the last column may hold text of any length.
pub(super) struct Table<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<Cell>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(columns: &'a [Column]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The lines, each of at most `width` columns as far as the fields allow it.
    pub(super) fn render(&self, width: Option<usize>, colored: bool) -> String {
        let shown = self.shown(width);
        let widths: Vec<usize> = shown.iter().map(|&column| self.width_of(column)).collect();
        let header = self.header(&widths, width);
        let mut lines = Vec::new();
        lines.extend(line(
            &header,
            &shown,
            &widths,
            width,
            Emphasis::header(colored),
        ));
        for row in &self.rows {
            lines.extend(line(row, &shown, &widths, width, Emphasis::body(colored)));
        }
        lines.join("\n")
    }

    /// The names of the columns; that of the last one only if there is room for it beside the others.
    fn header(&self, widths: &[usize], width: Option<usize>) -> Vec<Cell> {
        let mut header: Vec<Cell> = self
            .columns
            .iter()
            .map(|column| Cell::new(column.name))
            .collect();
        let fixed = &widths[..widths.len().saturating_sub(1)];
        let at: usize = fixed.iter().map(|width| width + GAP).sum();
        if let (Some(last), Some(width)) = (header.last_mut(), width)
            && at + columns_of(&last.text) > width
        {
            last.text.clear();
        }
        header
    }

    /// The columns that there is room for.
    fn shown(&self, width: Option<usize>) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(width) = width else { return shown };
        while self.fixed_width(&shown) > width {
            let most = shown
                .iter()
                .enumerate()
                .max_by_key(|(_, column)| self.columns[**column].expendable);
            match most {
                Some((index, column)) if self.columns[*column].expendable > 0 => {
                    shown.remove(index);
                }
                _ => break,
            }
        }
        shown
    }

    /// The width of all columns, without the last one if that is wide: its text may be continued.
    fn fixed_width(&self, shown: &[usize]) -> usize {
        let is_fixed = |column: usize| {
            column + 1 < self.columns.len() || self.width_of(column) <= MAX_SHORT_COLUMNS
        };
        let fixed = shown.iter().filter(|column| is_fixed(**column));
        let widths: usize = fixed.map(|column| self.width_of(*column) + GAP).sum();
        widths.saturating_sub(GAP)
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| columns_of(&cell.text));
        cells
            .max()
            .unwrap_or(0)
            .max(columns_of(self.columns[column].name))
    }
}

/// How the fields of a row are emphasised.
#[derive(Clone, Copy)]
struct Emphasis {
    colored: bool,
    bold: bool,
}

impl Emphasis {
    fn header(colored: bool) -> Self {
        Self {
            colored,
            bold: colored,
        }
    }

    fn body(colored: bool) -> Self {
        Self {
            colored,
            bold: false,
        }
    }

    fn apply(self, text: &str, color: Option<Color>) -> String {
        match color {
            _ if self.bold => format!("\u{1b}[1m{text}\u{1b}[0m"),
            Some(color) if self.colored => format!("\u{1b}[{}m{text}\u{1b}[0m", color as u8),
            _ => text.to_owned(),
        }
    }
}

/// A row's line, and those on which its last column continues.
fn line(
    row: &[Cell],
    shown: &[usize],
    widths: &[usize],
    width: Option<usize>,
    emphasis: Emphasis,
) -> Vec<String> {
    let last = shown.len().saturating_sub(1);
    let mut first = String::new();
    for (index, &column) in shown.iter().enumerate().take(last) {
        let cell = &row[column];
        let padding = widths[index] - columns_of(&cell.text) + GAP;
        first += &emphasis.apply(&cell.text, cell.color);
        first += &" ".repeat(padding);
    }
    let Some(text) = shown.last().and_then(|column| row.get(*column)) else {
        return vec![first];
    };
    let at: usize = widths[..last].iter().map(|width| width + GAP).sum();
    let room = width.map(|width| width.saturating_sub(at));
    let (indent, parts) = match (width, room) {
        (Some(width), Some(room)) if columns_of(&text.text) > room && room < MIN_TEXT_COLUMNS => {
            (INDENT, below(&text.text, width))
        }
        (_, room) => (at, wrap(&text.text, room)),
    };
    let mut lines = vec![first];
    for (index, part) in parts.iter().enumerate() {
        let part = emphasis.apply(part, text.color);
        match index {
            0 => lines[0] += &part,
            _ => lines.push(format!("{}{part}", " ".repeat(indent))),
        }
    }
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// Nothing on the row's own line, and the text on those below it.
fn below(text: &str, width: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    parts.extend(wrap(text, Some(width.saturating_sub(INDENT))));
    parts
}

/// Breaks a text between words; a word that is longer than the room stays whole.
fn wrap(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| columns_of(line));
        if line > 0 && line + 1 + columns_of(word) > room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            let space = if line.is_empty() { "" } else { " " };
            write!(line, "{space}{word}").ok();
        }
    }
    lines
}

fn columns_of(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests;
