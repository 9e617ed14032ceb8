//! Finds the value whose pattern a path has.
//!
//! A tree with a level for each segment. Of the patterns that a path has, the most literal one at the first
//! segment where they differ wins: a literal, then the capture with the longest affixes, then a
//! capture, then the rest. Where the winner's way ends short of a value, the next one is tried. So no two patterns
//! conflict but those that have the very same paths; this is why it isn't `matchit`, which refuses `/{id}` beside
//! `/{*rest}`, and `/{x}.json` beside either.
//!
//! Each node is looked at once at most: the time is bounded by the routes, however a path is chosen.

use crate::captures::Captures;
use crate::pattern::{Pattern, Segment};

#[derive(Debug)]
pub(crate) struct Tree<V> {
    // The first is the root. They are named by their place.
    nodes: Vec<Node<V>>,
}

#[derive(Debug)]
struct Node<V> {
    /// Sorted by their length, which tells most of them apart without a look at their bytes, and then by their text.
    literals: Vec<(Box<str>, usize)>,
    /// Those with more literal bytes first, then those with the longer prefix.
    affixed: Vec<Affixed>,
    capture: Option<usize>,
    /// Of the pattern that ends here.
    value: Option<V>,
    /// Of the pattern that takes all the rest from here on.
    rest: Option<V>,
}

fn by_length(a: &str, b: &str) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[derive(Debug)]
struct Affixed {
    prefix: Box<str>,
    suffix: Box<str>,
    node: usize,
}

impl Affixed {
    fn fits(&self, segment: &str) -> bool {
        segment.len() > self.prefix.len() + self.suffix.len()
            && segment.starts_with(&*self.prefix)
            && segment.ends_with(&*self.suffix)
    }
}

impl<V> Node<V> {
    fn new() -> Self {
        Self {
            literals: Vec::new(),
            affixed: Vec::new(),
            capture: None,
            value: None,
            rest: None,
        }
    }
}

impl<V> Tree<V> {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node::new()],
        }
    }

    /// The place of a pattern's value.
    pub(crate) fn entry(&mut self, pattern: &Pattern) -> &mut Option<V> {
        let mut node = 0;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => self.literal(node, text),
                Segment::Capture { prefix, suffix } if prefix.is_empty() && suffix.is_empty() => {
                    self.capture(node)
                }
                Segment::Capture { prefix, suffix } => self.affixed(node, prefix, suffix),
                Segment::Rest => return &mut self.nodes[node].rest,
            };
        }
        &mut self.nodes[node].value
    }

    fn add(&mut self) -> usize {
        self.nodes.push(Node::new());
        self.nodes.len() - 1
    }

    fn literal(&mut self, node: usize, text: &str) -> usize {
        match self.nodes[node]
            .literals
            .binary_search_by(|(own, _)| by_length(own, text))
        {
            Ok(at) => self.nodes[node].literals[at].1,
            Err(at) => {
                let child = self.add();
                self.nodes[node].literals.insert(at, (text.into(), child));
                child
            }
        }
    }

    fn capture(&mut self, node: usize) -> usize {
        if let Some(child) = self.nodes[node].capture {
            return child;
        }
        let child = self.add();
        self.nodes[node].capture = Some(child);
        child
    }

    fn affixed(&mut self, node: usize, prefix: &str, suffix: &str) -> usize {
        let own = |other: &&Affixed| &*other.prefix == prefix && &*other.suffix == suffix;
        if let Some(affixed) = self.nodes[node].affixed.iter().find(own) {
            return affixed.node;
        }
        let child = self.add();
        let affixed = &mut self.nodes[node].affixed;
        affixed.push(Affixed {
            prefix: prefix.into(),
            suffix: suffix.into(),
            node: child,
        });
        affixed
            .sort_by_key(|a| std::cmp::Reverse((a.prefix.len() + a.suffix.len(), a.prefix.len())));
        child
    }

    /// All values, in no order that means anything.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.nodes
            .iter_mut()
            .flat_map(|node| node.value.iter_mut().chain(node.rest.iter_mut()))
    }

    /// The value whose pattern `path` has, and what its captures have caught.
    pub(crate) fn find(&self, path: &str, captures: &mut Captures) -> Option<&V> {
        if !path.starts_with('/') {
            return None;
        }
        self.find_from(0, path, 1, captures)
    }

    /// Goes on at `node` with the segment that begins at `start`.
    fn find_from(
        &self,
        node: usize,
        path: &str,
        start: usize,
        captures: &mut Captures,
    ) -> Option<&V> {
        let node = &self.nodes[node];
        let rest = &path[start..];
        let (segment, last) = match rest.as_bytes().iter().position(|&byte| byte == b'/') {
            Some(length) => (&rest[..length], false),
            None => (rest, true),
        };
        let end = start + segment.len();

        let literal = match &*node.literals {
            [] => None,
            [(text, child)] => (**text == *segment).then_some(*child),
            many => many
                .binary_search_by(|(text, _)| by_length(text, segment))
                .ok()
                .map(|at| many[at].1),
        };
        if let Some(value) = literal.and_then(|child| self.step(child, last, path, end, captures)) {
            return Some(value);
        }
        if segment.is_empty() && last {
            return None;
        }
        for affixed in node.affixed.iter().filter(|affixed| affixed.fits(segment)) {
            captures.push(start + affixed.prefix.len(), end - affixed.suffix.len());
            if let Some(value) = self.step(affixed.node, last, path, end, captures) {
                return Some(value);
            }
            captures.pop();
        }
        if let (Some(child), false) = (node.capture, segment.is_empty()) {
            captures.push(start, end);
            if let Some(value) = self.step(child, last, path, end, captures) {
                return Some(value);
            }
            captures.pop();
        }
        let value = node.rest.as_ref()?;
        captures.push(start, path.len());
        Some(value)
    }

    fn step(
        &self,
        child: usize,
        last: bool,
        path: &str,
        end: usize,
        captures: &mut Captures,
    ) -> Option<&V> {
        if last {
            self.nodes[child].value.as_ref()
        } else {
            self.find_from(child, path, end + 1, captures)
        }
    }
}
