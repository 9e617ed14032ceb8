//! Finding an error of a known type inside a box of unknown ones.

use std::error::Error;
use std::io;
use std::sync::Arc;

/// Walks the chain of an error's sources to the first error of type `E`, itself included.
///
/// A middleware that can fail boxes its error and the inner service's, and the next may wrap both in one of
/// its own. This finds the error that one wants to act on, wherever it is. It looks also where
/// [`source`](Error::source) skips an error: into boxes and `Arc`s of errors that are errors themselves, and
/// into the error that an [`io::Error`] was made of.
///
/// # Example
///
/// ```
/// use std::{error, fmt, io};
/// use tower_util::find_source;
///
/// #[derive(Debug)]
/// struct RateLimited {
///     retry_after: u32,
/// }
/// # impl fmt::Display for RateLimited {
/// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
/// #         f.write_str("too many requests")
/// #     }
/// # }
/// # impl error::Error for RateLimited {}
///
/// // As it comes out of a stack: boxed, in an error of another library.
/// let limited = RateLimited { retry_after: 7 };
/// let error: Box<dyn error::Error + Send + Sync> = io::Error::other(limited).into();
///
/// let found = find_source::<RateLimited>(&*error);
/// assert_eq!(found.map(|limited| limited.retry_after), Some(7));
/// assert!(find_source::<fmt::Error>(&*error).is_none());
/// ```
pub fn find_source<'e, E>(error: &'e (dyn Error + 'static)) -> Option<&'e E>
where
    E: Error + 'static,
{
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = downcast(error) {
            return Some(found);
        }
        next = inside(error);
    }
    None
}

/// `error` as an `E`, also when it is a pointer to one.
fn downcast<'e, E>(error: &'e (dyn Error + 'static)) -> Option<&'e E>
where
    E: Error + 'static,
{
    error
        .downcast_ref::<E>()
        .or_else(|| error.downcast_ref::<Box<E>>().map(|error| &**error))
        .or_else(|| error.downcast_ref::<Arc<E>>().map(|error| &**error))
}

/// The error next inside `error`: its source, save where `source` passes over one.
fn inside<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // Their `source` is that *of the error inside*, so that one itself would never be seen.
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**shared);
    }
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error>>() {
        return Some(&**shared);
    }
    if let Some(custom) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return Some(custom);
    }
    error.source()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug, PartialEq)]
    struct Leaf(u8);

    #[derive(Debug)]
    struct Node(Box<dyn Error + Send + Sync>);

    impl fmt::Display for Leaf {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("leaf")
        }
    }

    impl fmt::Display for Node {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("node")
        }
    }

    impl Error for Leaf {}

    impl Error for Node {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn it_finds_the_error_itself_and_any_of_its_sources() {
        assert_eq!(find_source(&Leaf(1)), Some(&Leaf(1)));
        let deep = Node(Node(Node(Leaf(2).into()).into()).into());
        assert_eq!(find_source(&deep), Some(&Leaf(2)));
        assert!(find_source::<Node>(&deep).is_some());
        assert!(find_source::<fmt::Error>(&deep).is_none());
    }

    #[test]
    fn it_sees_through_boxes_arcs_and_io_errors() {
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(Leaf(3));
        let local: Arc<dyn Error> = Arc::new(Box::new(Leaf(4)));
        assert_eq!(find_source(&Box::new(Leaf(1))), Some(&Leaf(1)));
        assert_eq!(find_source(&Arc::new(Leaf(2))), Some(&Leaf(2)));
        assert_eq!(find_source(&shared), Some(&Leaf(3)));
        assert_eq!(find_source(&local), Some(&Leaf(4)));
        assert_eq!(find_source(&io::Error::other(Leaf(5))), Some(&Leaf(5)));

        let all = Node(Box::new(io::Error::other(Node(Box::new(Arc::clone(
            &shared,
        ))))));
        assert_eq!(find_source(&all), Some(&Leaf(3)));
        assert!(find_source::<io::Error>(&all).is_some());
    }

    #[test]
    fn an_io_error_without_an_error_inside_ends_the_chain() {
        let plain = io::Error::from(io::ErrorKind::TimedOut);
        assert!(find_source::<Leaf>(&plain).is_none());
    }
}
