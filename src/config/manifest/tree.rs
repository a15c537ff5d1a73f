//! A YAML document as a tree in which everything knows its line and column.
//!
//! Pure, and bounded whatever comes in: bytes, nesting and nodes are limited, and an alias counts as many nodes as it
//! stands for. JSON is read too, being YAML.

use std::fmt;

use granit_parser::{Event, Parser, ScalarStyle, Tag};

/// Longest manifest, bytes. Real ones have some thousand; a larger file is something else.
pub const MAX_BYTES: u64 = 256 * 1024;
/// Deepest nesting. Manifests have 9 levels; configuration inside them adds a few.
const MAX_DEPTH: usize = 32;
/// Most nodes (scalars, lists, maps), aliases counted as what they stand for. 64 times a large manifest.
const MAX_NODES: usize = 20_000;

/// A place in the text, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where.
    pub position: Position,
    /// What.
    pub text: String,
}

impl Flaw {
    /// `text` at `position`.
    pub fn new(position: Position, text: impl Into<String>) -> Self {
        Self { position, text: text.into() }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub position: Position,
    /// What it is.
    pub content: Content,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written; keys are distinct.
    Map(Vec<Member>),
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its key.
    pub key: String,
    /// Where the key is.
    pub position: Position,
    /// Its value.
    pub value: Node,
}

impl Content {
    /// The kind, for "expected …, got …".
    pub fn kind(&self) -> &'static str {
        match self {
            Content::Null => "nothing",
            Content::Bool(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }
}

impl Node {
    /// The node as JSON, for configuration that is handed on.
    ///
    /// # Errors
    /// A number that JSON cannot hold.
    pub fn to_json(&self) -> Result<serde_json::Value, Flaw> {
        use serde_json::Value;
        Ok(match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Text(text) => Value::String(text.clone()),
            Content::Number(text) => {
                let whole = text.trim_start_matches('+');
                let number = serde_json::from_str::<serde_json::Number>(whole)
                    .ok()
                    .or_else(|| whole.parse().ok().and_then(serde_json::Number::from_f64));
                number
                    .map(Value::Number)
                    .ok_or_else(|| Flaw::new(self.position, "this number has no place in JSON; put it in quotes"))?
            }
            Content::List(items) => Value::Array(items.iter().map(Node::to_json).collect::<Result<_, _>>()?),
            Content::Map(members) => Value::Object(
                members
                    .iter()
                    .map(|member| Ok((member.key.clone(), member.value.to_json()?)))
                    .collect::<Result<_, Flaw>>()?,
            ),
        })
    }
}

/// A list or map that is not closed yet.
struct Open {
    position: Position,
    anchor: usize,
    content: Building,
}

enum Building {
    List(Vec<Node>),
    Map { members: Vec<Member>, key: Option<(String, Position)> },
}

/// Reads the one document in `text`.
///
/// # Errors
/// The first flaw: syntax, a limit, a key that is given twice or is no text, more than one document.
pub fn parse(text: &str) -> Result<Node, Flaw> {
    let options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let position = position(error.marker());
            Flaw::new(position, format!("not valid YAML: {}", error.info().replace('\n', " ")))
        })?;
        builder.event(event, position(&span.start))?;
    }
    builder.root.ok_or_else(|| Flaw::new(Position { line: 1, column: 1 }, "the file is empty"))
}

fn position(marker: &granit_parser::Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    /// Finished nodes that have an anchor, with how many nodes they are.
    anchored: Vec<(usize, Node, usize)>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, position: Position) -> Result<(), Flaw> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Flaw::new(position, "a second document begins here; one manifest is one document"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, position)?;
                let content = scalar(&text, style, tag.as_deref());
                self.add(Node { position, content }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.start(position, anchor, Building::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.start(position, anchor, Building::Map { members: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().ok_or_else(|| Flaw::new(position, "nothing is open here"))?;
                let content = match open.content {
                    Building::List(items) => Content::List(items),
                    Building::Map { members, .. } => Content::Map(members),
                };
                self.add(Node { position: open.position, content }, open.anchor)
            }
            Event::Alias(anchor) => {
                let found = self.anchored.iter().find(|(known, _, _)| *known == anchor);
                let (_, node, size) =
                    found.ok_or_else(|| Flaw::new(position, "the alias stands inside what it stands for"))?;
                let (node, size) = (Node { position, ..node.clone() }, *size);
                self.count(size, position)?;
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, position: Position) -> Result<(), Flaw> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(Flaw::new(
                position,
                format!("more than {MAX_NODES} values, aliases counted as what they stand for"),
            ));
        }
        Ok(())
    }

    fn start(&mut self, position: Position, anchor: usize, content: Building) -> Result<(), Flaw> {
        self.count(1, position)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(Flaw::new(position, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { position, anchor, content });
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Flaw> {
        if anchor != 0 {
            let size = size(&node);
            // What is kept for aliases counts too, or a chain of anchors inside anchors would multiply memory.
            self.count(size, node.position)?;
            self.anchored.push((anchor, node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Building::List(items)) => items.push(node),
            Some(Building::Map { members, key }) => match key.take() {
                Some((key, position)) => members.push(Member { key, position, value: node }),
                None => {
                    let text = key_of(&node)?;
                    if let Some(first) = members.iter().find(|member| member.key == text) {
                        let line = first.position.line;
                        return Err(Flaw::new(node.position, format!("{text:?} is given twice, first on line {line}")));
                    }
                    *key = Some((text, node.position));
                }
            },
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::List(items) => items.iter().map(size).sum::<usize>(),
        Content::Map(members) => members.iter().map(|member| size(&member.value)).sum(),
        _ => 0,
    }
}

fn key_of(node: &Node) -> Result<String, Flaw> {
    match &node.content {
        Content::Text(text) if text == "<<" => {
            Err(Flaw::new(node.position, "merge keys (<<) are not supported; write the members out"))
        }
        Content::Text(text) | Content::Number(text) => Ok(text.clone()),
        Content::Bool(value) => Ok(value.to_string()),
        other => Err(Flaw::new(node.position, format!("a key must be text, this is {}", other.kind()))),
    }
}

/// What a scalar means in the core schema of YAML 1.2: only what is not in quotes can be anything but text.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Content {
    let tag = tag.and_then(Tag::core_suffix);
    let plain = style == ScalarStyle::Plain;
    match (tag, text) {
        (Some("str"), _) => Content::Text(text.to_owned()),
        (None, _) if !plain => Content::Text(text.to_owned()),
        (None | Some("null"), "" | "~" | "null" | "Null" | "NULL") => Content::Null,
        (None | Some("bool"), "true" | "True" | "TRUE") => Content::Bool(true),
        (None | Some("bool"), "false" | "False" | "FALSE") => Content::Bool(false),
        (None | Some("int" | "float"), _) if is_number(text) => Content::Number(text.to_owned()),
        _ => Content::Text(text.to_owned()),
    }
}

/// A decimal number: sign, digits, fraction, exponent. Hexadecimal and octal ones stay text, as in JSON.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (digits, None),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    all_digits(whole) && (fraction.is_empty() || all_digits(fraction)) && exponent.is_none_or(all_digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> serde_json::Value {
        parse(text).and_then(|node| node.to_json()).expect("good YAML")
    }

    fn flaw(text: &str) -> String {
        let flaw = parse(text).expect_err("bad YAML");
        format!("{}: {}", flaw.position, flaw.text)
    }

    #[test]
    fn yaml_and_json_become_the_same_tree() {
        let expected =
            serde_json::json!({"a": [1, -2.5, true, null, "x", "1", "0x10"], "b": {"c": "long text\n"}, "d": {}});
        assert_eq!(json("a: [1, -2.5, true, ~, x, \"1\", 0x10]\nb:\n  c: |\n    long text\nd: {}\n"), expected);
        assert_eq!(json(&expected.to_string()), expected);
        assert_eq!(json(&format!("{expected:#}").replace("  ", "\t")), expected);
        assert_eq!(json("a: !!str 5\nb: +3\nc: 1e3\nd: 5."), serde_json::json!({"a": "5", "b": 3, "c": 1e3, "d": 5.0}));
    }

    #[test]
    fn everything_knows_its_place() {
        let root = parse("a: 1\nbé: [x,\n    y]\n").expect("good YAML");
        let Content::Map(members) = root.content else { panic!("a map") };
        assert_eq!(
            (members[1].position, members[1].value.position),
            (Position { line: 2, column: 1 }, Position { line: 2, column: 5 })
        );
        let Content::List(items) = &members[1].value.content else { panic!("a list") };
        assert_eq!(items[1].position, Position { line: 3, column: 5 });
    }

    #[test]
    fn aliases_work_where_they_are_used() {
        assert_eq!(json("a: &x {k: [1]}\nb: *x"), serde_json::json!({"a": {"k": [1]}, "b": {"k": [1]}}));
    }

    #[test]
    fn flaws_have_line_and_column() {
        assert_eq!(flaw("a: 1\nb: 2\na: 3"), "3:1: \"a\" is given twice, first on line 1");
        assert_eq!(flaw("a: 1\n---\nb: 2"), "2:1: a second document begins here; one manifest is one document");
        assert_eq!(flaw(""), "1:1: the file is empty");
        assert_eq!(flaw("[1]: 2"), "1:1: a key must be text, this is a list");
        assert_eq!(flaw("a: &x 1\nb:\n  <<: *x"), "3:3: merge keys (<<) are not supported; write the members out");
        assert!(flaw("a:\n  - b\n c: d").starts_with("3:"), "{}", flaw("a:\n  - b\n c: d"));
        assert!(flaw("a: *nobody").starts_with("1:4: not valid YAML: "), "{}", flaw("a: *nobody"));
        assert!(flaw("a: \"open").starts_with("1:"), "{}", flaw("a: \"open"));
        assert!(flaw("a: &x [*x]").starts_with("1:8: "), "{}", flaw("a: &x [*x]"));
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..20 {
            let list = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(
            flaw(&bomb).ends_with("more than 20000 values, aliases counted as what they stand for"),
            "{}",
            flaw(&bomb)
        );
        for open in ["[", "{a: ", "- "] {
            let text = flaw(&open.repeat(100_000));
            assert!(text.contains("nest") || text.contains("limit") || text.contains("recursion"), "{text}");
        }
        let wide = "- x\n".repeat(MAX_NODES + 1);
        assert!(flaw(&wide).contains("more than 20000 values"));
        let nested_anchors: String =
            (0..30).map(|level| format!("&a{level} [")).collect::<String>() + "x" + &"]".repeat(30);
        assert!(parse(&nested_anchors).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_ends(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn any_yaml_like_text_ends(text in "[-a0:&*\\[\\]{}, \"'|>#\n!?%]{0,200}") {
            let _ = parse(&text);
        }
    }
}
