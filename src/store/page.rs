//! Pages of a list: how much one may hold, and where the next one continues.

/// How much a page may hold.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// The most items.
    pub items: u64,
    /// The most bytes of the items' texts and payloads. A page always gets one item, however large.
    pub bytes: u64,
}

/// A page of a list.
///
/// It can be short, even empty, although the list continues: if its bytes are used up, or if matches are so rare that
/// the page ends before one is found.
#[derive(Clone, Debug)]
pub struct Page<T, C> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// The next page continues after this position; `None` at the end of the list. It stays valid if the item at that
    /// position is deleted meanwhile.
    pub next: Option<C>,
}

impl PageLimit {
    /// How many rows to fetch: one more than the page takes shows whether the list continues.
    pub(super) const fn fetch(self) -> u64 {
        self.items.saturating_add(1)
    }

    /// Builds a page of rows in the order of the list, of which at most [`fetch`](Self::fetch) were requested; `next`
    /// is where the list continues after all of them.
    pub(super) fn page<T, C>(
        self,
        mut rows: Vec<T>,
        next: Option<C>,
        cursor: impl Fn(&T) -> C,
        bytes: impl Fn(&T) -> u64,
    ) -> Page<T, C> {
        let kept = self.fitting(rows.iter().map(bytes));
        if kept >= rows.len() {
            return Page { items: rows, next };
        }
        rows.truncate(kept);
        let next = rows.last().map(cursor);
        Page { items: rows, next }
    }

    /// How many of the items fit into a page, by their sizes.
    fn fitting(self, sizes: impl Iterator<Item = u64>) -> usize {
        let mut left = self.bytes;
        let fits = |(index, size): &(usize, u64)| {
            let is_first = *index == 0;
            let room = left.checked_sub(*size);
            left = room.unwrap_or(0);
            is_first || room.is_some()
        };
        let most = usize::try_from(self.items).unwrap_or(usize::MAX);
        sizes.take(most).enumerate().take_while(fits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(sizes: &[u64], next: Option<u64>) -> (usize, Option<u64>) {
        let limit = PageLimit { items: 3, bytes: 10 };
        let page = limit.page(sizes.to_vec(), next, |size| *size, |size| *size);
        (page.items.len(), page.next)
    }

    #[test]
    fn a_page_ends_at_its_items_or_bytes_and_has_at_least_one_item() {
        for (sizes, next, expected) in [
            (&[][..], None, (0, None)),
            (&[], Some(7), (0, Some(7))),
            (&[1, 2, 3], None, (3, None)),
            (&[1, 2, 3], Some(7), (3, Some(7))),
            (&[1, 2, 3, 4], None, (3, Some(3))),
            (&[5, 5], None, (2, None)),
            (&[5, 6, 1], Some(7), (1, Some(5))),
            (&[11, 1], None, (1, Some(11))),
            (&[11], None, (1, None)),
        ] {
            assert_eq!(page(sizes, next), expected, "{sizes:?}");
        }
    }
}
