//! YAML as a tree that knows its lines, of a bounded size. Scalars stay text: what `0440`, `22:22` or `yes` means is up to the
//! caller.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// How a document is read.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most nodes of a document, with those that aliases repeat.
    pub max_nodes: usize,
    /// Deepest nesting.
    pub max_depth: usize,
    /// Whether the key `<<` merges a mapping, or the first of a list of mappings that has a key, into its own.
    pub merges: bool,
    /// Plain scalars that are nothing.
    pub nulls: &'static [&'static str],
}

/// The key whose mapping, or list of mappings, is merged into its own.
const MERGE: &str = "<<";

/// A value and the line that it begins on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The line, from 1.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A text. It is plain if it has no quotes and is no block.
    Text {
        /// The text.
        text: String,
        /// Whether it is plain.
        is_plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the document's order.
    Map(Vec<Entry>),
}

/// A key with its line, and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its value.
    pub node: Node,
}

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrong {
    /// The line, from 1.
    pub line: usize,
    /// The message.
    pub message: String,
}

/// Reads the only document of a text.
///
/// # Errors
/// It is no YAML, has several documents, or is too large or too deep.
pub fn parse(text: &str, options: Options) -> Result<Node, Wrong> {
    let mut reader = Reader {
        options,
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        nodes: 0,
    };
    let mut document = None;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) if document.is_some() => {
                return Err(wrong(line, "a second document begins here: keep one"));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => document = Some(reader.node(event, line, 0)?),
        }
    }
    Ok(document.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

struct Reader<'a> {
    options: Options,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Wrong> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, Wrong> {
        self.count(1, line)?;
        let most = self.options.max_depth;
        if depth > most {
            return Err(wrong(line, format!("nested more than {most} deep")));
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| wrong(line, "an alias within its own anchor"))?;
                self.count(size(&node), line)?;
                return Ok(Node { line, ..node });
            }
            Event::Scalar(text, style, anchor, _) => (anchor, self.scalar(&text, style)),
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            _ => return Err(wrong(line, "a value is missing here")),
        };
        let node = Node { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut list = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::List(list));
            }
            list.push(self.node(event, line, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Wrong> {
        let mut own: Vec<Entry> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return merge(own, merged);
            }
            let key = match self.node(event, line, depth + 1)?.value {
                Value::Text { text, .. } => text,
                Value::Null => "null".to_owned(),
                _ => return Err(wrong(line, "a key is a list or a mapping here")),
            };
            let (event, value_line) = self.next()?;
            let node = self.node(event, value_line, depth + 1)?;
            if self.options.merges && key == MERGE {
                merged.push(node);
            } else if own.iter().any(|entry| entry.key == key) {
                return Err(wrong(line, format!("{key} is here for the second time")));
            } else {
                own.push(Entry { key, line, node });
            }
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle) -> Value {
        let is_plain = style == ScalarStyle::Plain;
        match is_plain && self.options.nulls.contains(&text) {
            true => Value::Null,
            false => Value::Text {
                text: text.to_owned(),
                is_plain,
            },
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Wrong> {
        self.nodes = self.nodes.saturating_add(nodes);
        let most = self.options.max_nodes;
        match self.nodes > most {
            true => Err(wrong(
                line,
                format!("more than {most} values, with those that aliases repeat"),
            )),
            false => Ok(()),
        }
    }
}

/// A mapping with what it merges: its own keys win, then the first of several.
fn merge(mut own: Vec<Entry>, merged: Vec<Node>) -> Result<Value, Wrong> {
    let mut sources = Vec::new();
    for node in merged {
        match node.value {
            Value::List(list) => sources.extend(list),
            _ => sources.push(node),
        }
    }
    let mut known: BTreeSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    for source in sources {
        let Value::Map(entries) = source.value else {
            return Err(wrong(source.line, "`<<` merges mappings, and this is none"));
        };
        let new = entries
            .into_iter()
            .filter(|entry| known.insert(entry.key.clone()));
        own.extend(new);
    }
    Ok(Value::Map(own))
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Text { .. } => 1,
        Value::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|it| 1 + size(&it.node)).sum::<usize>(),
    }
}

fn scan_error(error: &ScanError) -> Wrong {
    wrong(error.marker().line(), format!("no YAML: {}", error.info()))
}

fn wrong(line: usize, message: impl Into<String>) -> Wrong {
    Wrong {
        line,
        message: message.into(),
    }
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|it| it.key == key)
            .map(|it| &it.node)
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list; none of anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(list) => list,
            _ => &[],
        }
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Text { .. } => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}
