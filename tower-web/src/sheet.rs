//! Memory for short texts, one behind the other.

use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};

/// How large a sheet is. Whoever keeps a text that was written on one keeps all of it.
const SIZE: usize = 4096;

/// A larger one isn't kept.
const MOST: usize = 16 * 1024;

thread_local! {
    static SHEET: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// What `write` writes. Where those that were written before are gone, it needs no memory of its own.
#[inline]
pub(crate) fn written<E>(
    write: impl FnOnce(&mut bytes::buf::Writer<BytesMut>) -> Result<(), E>,
) -> Result<Bytes, E> {
    // Who writes while another one does finds none.
    let sheet = SHEET.try_with(Cell::take).ok().flatten();
    let mut sheet = sheet.unwrap_or_default();
    if sheet.capacity() < SIZE / 16 {
        // Most often it is written on from its beginning again.
        sheet.reserve(SIZE);
    }
    let mut writer = sheet.writer();
    let outcome = write(&mut writer);
    let mut sheet = writer.into_inner();
    let text = sheet.split().freeze();
    if text.len() <= MOST {
        let _ = SHEET.try_with(|kept| kept.set(Some(sheet)));
    }
    outcome.map(|()| text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn text(text: &[u8]) -> Bytes {
        written(|sheet| sheet.write_all(text)).unwrap()
    }

    #[test]
    fn what_is_kept_stays_as_it_was() {
        let texts: Vec<_> = (0..1000_usize).map(|at| vec![b'x'; at * 7 % 300]).collect();
        let kept: Vec<_> = texts.iter().map(|own| text(own)).collect();
        assert!(texts.iter().zip(&kept).all(|(own, kept)| own == kept));
    }

    #[test]
    fn memory_is_used_again() {
        let first = text(b"x").as_ptr() as usize;
        for at in 0..10_000 {
            let own = text(b"a text of some length");
            let place = own.as_ptr() as usize;
            assert!(place.abs_diff(first) < SIZE, "{at}");
        }
    }

    #[test]
    fn a_large_one_is_no_sheet() {
        drop(text(&[b'x'; 10 * MOST]));
        assert!(SHEET.take().is_none());
    }

    #[test]
    fn one_that_fails_leaves_nothing() {
        let failed = written(|sheet| {
            let _ = sheet.write_all(b"half");
            Err(())
        });
        assert_eq!(failed, Err(()));
        assert_eq!(text(b"whole"), "whole");
    }

    #[test]
    fn one_within_another_has_its_own() {
        let outer = written(|sheet| {
            sheet.write_all(b"out")?;
            assert_eq!(text(b"inner"), "inner");
            sheet.write_all(b"er")
        });
        assert_eq!(outer.unwrap(), "outer");
    }
}
