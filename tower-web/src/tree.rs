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

/// Whether they are equal. Two that are empty aren't compared: the C library's comparison reads with a mask where an empty
/// `Box` points to, and that costs a processor with AVX-512 more than the rest of the search.
#[inline]
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
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
            // A look at each costs less than a search, where they are few.
            few if few.len() <= 8 => few
                .iter()
                .find(|(text, _)| is_same(text, segment))
                .map(|(_, child)| *child),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(paths: &[&str]) -> Tree<String> {
        let mut tree = Tree::new();
        for path in paths {
            *tree.entry(&Pattern::parse(path).unwrap()) = Some((*path).to_owned());
        }
        tree
    }

    fn caught(path: &str, captures: &Captures) -> Vec<String> {
        let ranges = (0..).map_while(|position| captures.range(position));
        ranges.map(|range| path[range].to_owned()).collect()
    }

    #[track_caller]
    fn assert_finds(tree: &Tree<String>, path: &str, wanted: Option<(&str, &[&str])>) {
        let mut captures = Captures::default();
        let found = tree.find(path, &mut captures).map(String::as_str);
        assert_eq!(found, wanted.map(|(pattern, _)| pattern), "{path}");
        if let Some((_, wanted)) = wanted {
            assert_eq!(caught(path, &captures), wanted, "{path}");
        }
    }

    #[test]
    fn the_most_literal_pattern_wins_and_its_captures_alone_are_left() {
        let tree = tree(&[
            "/",
            "/{id}",
            "/{id}.json",
            "/v{version}.json",
            "/{*rest}",
            "/a/{b}/c",
            "/a/b/{c}/d",
            "/a/",
        ]);
        assert_finds(&tree, "/", Some(("/", &[])));
        assert_finds(&tree, "/x", Some(("/{id}", &["x"])));
        assert_finds(&tree, "/x.json", Some(("/{id}.json", &["x"])));
        assert_finds(&tree, "/v7.json", Some(("/v{version}.json", &["7"])));
        assert_finds(&tree, "/.json", Some(("/{id}", &[".json"])));
        assert_finds(&tree, "/a/b/c", Some(("/a/{b}/c", &["b"])));
        assert_finds(&tree, "/a/b/x/d", Some(("/a/b/{c}/d", &["x"])));
        assert_finds(&tree, "/a/b/x/e", Some(("/{*rest}", &["a/b/x/e"])));
        assert_finds(&tree, "/a/", Some(("/a/", &[])));
        assert_finds(&tree, "//", Some(("/{*rest}", &["/"])));
        assert_finds(&tree, "x", None);
        assert_finds(&tree, "", None);
        assert_finds(&tree, "*", None);
    }

    #[test]
    fn more_captures_than_are_held_in_place_are_held_too() {
        let tree = tree(&["/{a}/{b}/{c}/{d}/{e}/{f}"]);
        assert_finds(
            &tree,
            "/1/2/3/4/5/6",
            Some(("/{a}/{b}/{c}/{d}/{e}/{f}", &["1", "2", "3", "4", "5", "6"])),
        );
    }

    /// Whether a path has the pattern, segment by segment, and how literal each segment is: less is more literal.
    fn rank(pattern: &Pattern, path: &str) -> Option<Vec<(u8, isize, isize)>> {
        let mut ranks = Vec::new();
        let mut rest: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        for segment in pattern.segments() {
            if matches!(segment, Segment::Rest) {
                return (!rest.is_empty() && rest != [""]).then(|| {
                    ranks.push((3, 0, 0));
                    ranks
                });
            }
            if rest.is_empty() {
                return None;
            }
            let text = rest.remove(0);
            match segment {
                Segment::Literal(literal) if literal == text => ranks.push((0, 0, 0)),
                Segment::Capture { prefix, suffix }
                    if text.len() > prefix.len() + suffix.len()
                        && text.starts_with(&**prefix)
                        && text.ends_with(&**suffix) =>
                {
                    let length = |text: &str| text.len() as isize;
                    let affixes = length(prefix) + length(suffix);
                    ranks.push((if affixes > 0 { 1 } else { 2 }, -affixes, -length(prefix)));
                }
                _ => return None,
            }
        }
        rest.is_empty().then_some(ranks)
    }

    fn segment() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a", "b", "ab", "", "{x}", "a{x}", "{x}b", "a{x}b", "{x}",
        ])
    }

    fn pattern() -> impl Strategy<Value = String> {
        (prop::collection::vec(segment(), 1..4), any::<bool>()).prop_map(|(segments, rest)| {
            let mut path = String::new();
            for (at, segment) in segments.iter().enumerate() {
                path.push('/');
                path.push_str(&segment.replace('x', &format!("x{at}")));
            }
            if rest {
                path.push_str("/{*rest}");
            }
            path
        })
    }

    fn path() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "aab", "aabb", "c", "", "%2F"]);
        prop::collection::vec(segment, 1..6).prop_map(|segments| format!("/{}", segments.join("/")))
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_every_pattern_finds(
            patterns in prop::collection::vec(pattern(), 0..12),
            paths in prop::collection::vec(path(), 1..12),
        ) {
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let tree = tree(&patterns);
            for path in paths {
                let best = patterns
                    .iter()
                    .map(|text| Pattern::parse(text).unwrap())
                    .filter_map(|pattern| Some((rank(&pattern, &path)?, pattern.to_string())))
                    .min();
                let mut captures = Captures::default();
                let found = tree.find(&path, &mut captures);
                let found = found.map(|text| Pattern::parse(text).unwrap());
                prop_assert_eq!(found.as_ref().map(ToString::to_string), best.map(|(_, pattern)| pattern), "{}", path);
                // As many captures are left as the pattern has, and none is empty.
                let caught = caught(&path, &captures);
                prop_assert_eq!(caught.len(), found.map_or(0, |pattern| pattern.names().len()));
                prop_assert!(caught.iter().all(|text| !text.is_empty()));
            }
        }

        #[test]
        fn no_path_and_no_pattern_makes_it_panic(pattern in ".{0,40}", path in ".{0,40}") {
            let mut tree = Tree::new();
            if let Ok(pattern) = Pattern::parse(&pattern) {
                *tree.entry(&pattern) = Some(());
            }
            let _ = tree.find(&path, &mut Captures::default());
        }
    }
}
