//! What a disk holds after a power cut, derived from the journal that `shim.c` writes.
//!
//! Data is durable once its file was synced, a name (a file made, linked, renamed or removed) once its folder was. What
//! was changed since then may be there or not:
//! - each page of 4 KiB as it was at any instant since, and torn between two of its changes at a sector of 512 bytes;
//! - the size as it was at any instant since; no page is older or newer than the truncations that this size knows;
//! - the names as they were at any instant since, in their order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rand::{Rng, RngExt as _};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The length of a record's head: kind, file, offset, and how many bytes follow.
const HEAD: usize = 1 + 8 + 8 + 4;

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Some,
    All,
}

/// Each file of a folder by its path in it, with its content, and each folder in it with none.
pub(super) type Contents = BTreeMap<String, Option<Vec<u8>>>;

/// A folder on the disk.
#[derive(Clone, Default)]
pub(super) struct Image {
    files: Vec<File>,
    /// The newest file of each inode number.
    inodes: HashMap<u64, usize>,
    /// The names that are durable, and what was done to them since.
    names: BTreeMap<String, Node>,
    steps: Vec<Step>,
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { size: usize },
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Node {
    File(usize),
    Folder,
}

#[derive(Clone)]
enum Step {
    Put(String, Node),
    Rename(String, String),
    Remove(String),
}

impl Image {
    /// A folder that is durable as it is, with all that is in it.
    pub(super) fn of(folder: &Path) -> Self {
        let mut image = Self::default();
        image.read(folder, "");
        image
    }

    fn read(&mut self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            let node = if entry.file_type().unwrap().is_dir() {
                self.read(&entry.path(), &format!("{name}/"));
                Node::Folder
            } else {
                let file = File {
                    durable: fs::read(entry.path()).unwrap(),
                    changes: Vec::new(),
                };
                Node::File(self.add(entry.metadata().unwrap().ino(), file))
            };
            self.names.insert(name, node);
        }
    }

    fn add(&mut self, inode: u64, file: File) -> usize {
        self.files.push(file);
        self.inodes.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    /// Does what the whole records of a journal say.
    pub(super) fn replay(&mut self, mut journal: &[u8]) {
        while let Some((head, rest)) = journal.split_at_checked(HEAD) {
            let number = |from: usize| u64::from_le_bytes(head[from..from + 8].try_into().unwrap());
            let length = u32::from_le_bytes(head[17..].try_into().unwrap());
            let Some((bytes, rest)) = rest.split_at_checked(length as usize) else {
                return;
            };
            self.apply(head[0], number(1), usize::try_from(number(9)).unwrap(), bytes);
            journal = rest;
        }
    }

    fn apply(&mut self, kind: u8, inode: u64, at: usize, bytes: &[u8]) {
        let name = || String::from_utf8(bytes.to_vec()).unwrap();
        match kind {
            1 => {
                let file = self.add(inode, File::default());
                self.steps.push(Step::Put(name(), Node::File(file)));
            }
            2 => self.file(inode).changes.push(Change::Write {
                at,
                bytes: bytes.to_vec(),
            }),
            3 => self.file(inode).changes.push(Change::Truncate { size: at }),
            4 => {
                let file = self.file(inode);
                file.durable = file.now();
                file.changes.clear();
            }
            5 => {
                let names = name();
                let (from, to) = names.split_once('\n').unwrap();
                self.steps.push(Step::Rename(from.to_owned(), to.to_owned()));
            }
            6 | 10 => self.steps.push(Step::Remove(name())),
            7 => self.steps.push(Step::Put(name(), Node::File(self.inodes[&inode]))),
            8 => {
                let folder = name();
                let (durable, steps) = std::mem::take(&mut self.steps)
                    .into_iter()
                    .partition(|step| step.folder() == folder);
                self.steps = steps;
                self.names = after(self.names.clone(), &durable);
            }
            9 => self.steps.push(Step::Put(name(), Node::Folder)),
            other => panic!("a record of kind {other}"),
        }
    }

    fn file(&mut self, inode: u64) -> &mut File {
        &mut self.files[self.inodes[&inode]]
    }

    /// What the folder holds as long as the power is on.
    pub(super) fn now(&self) -> Contents {
        self.contents(&self.steps, File::now)
    }

    /// What a power cut leaves now.
    pub(super) fn cut(&self, left: Left, random: &mut impl Rng) -> Contents {
        match left {
            Left::Nothing => self.contents(&[], |file| file.durable.clone()),
            Left::Some => {
                let steps = random.random_range(0..=self.steps.len());
                self.contents(&self.steps[..steps], |file| file.torn(random))
            }
            Left::All => self.now(),
        }
    }

    fn contents(&self, steps: &[Step], mut survives: impl FnMut(&File) -> Vec<u8>) -> Contents {
        let names = after(self.names.clone(), steps);
        let mut contents = Contents::new();
        for (name, node) in names {
            // A folder comes before what is in it, which is lost with it.
            let is_reachable = parent(&name).is_empty() || contents.contains_key(parent(&name));
            if is_reachable {
                let content = match node {
                    Node::File(file) => Some(survives(&self.files[file])),
                    Node::Folder => None,
                };
                contents.insert(name, content);
            }
        }
        contents
    }
}

/// The folder that a path is in; the outermost one has an empty name.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Step {
    /// The folder that it changes.
    fn folder(&self) -> &str {
        match self {
            Self::Put(name, _) | Self::Remove(name) | Self::Rename(_, name) => parent(name),
        }
    }
}

/// Names after some steps.
fn after(mut names: BTreeMap<String, Node>, steps: &[Step]) -> BTreeMap<String, Node> {
    for step in steps {
        match step {
            Step::Put(name, node) => {
                names.insert(name.clone(), *node);
            }
            Step::Remove(name) => {
                names.remove(name);
            }
            Step::Rename(from, to) => {
                let inside = format!("{from}/");
                let moved: Vec<_> = names
                    .keys()
                    .filter(|name| *name == from || name.starts_with(&inside))
                    .cloned()
                    .collect();
                for name in moved {
                    let node = names.remove(&name).unwrap();
                    names.insert(format!("{to}{}", &name[from.len()..]), node);
                }
            }
        }
    }
    names
}

impl File {
    fn now(&self) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.changes {
            change.apply(&mut content);
        }
        content
    }

    /// What may be left of it.
    fn torn(&self, random: &mut impl Rng) -> Vec<u8> {
        // How many changes the size knows; the truncations around them bound what the pages may know.
        let known = random.random_range(0..=self.changes.len());
        let is_truncation = |change: &Change| matches!(change, Change::Truncate { .. });
        let oldest = self.changes[..known]
            .iter()
            .rposition(is_truncation)
            .map_or(0, |index| index + 1);
        let newest = self.changes[known..].iter().position(is_truncation);
        let newest = newest.map_or(self.changes.len(), |index| known + index);
        let size = self.changes[..known]
            .iter()
            .fold(self.durable.len(), |size, change| change.size(size));

        let mut content = self.durable.clone();
        for change in &self.changes[..oldest] {
            change.apply(&mut content);
        }
        let mut pages: HashMap<usize, usize> = HashMap::new();
        let mut torn: HashSet<usize> = HashSet::new();
        for (index, change) in self.changes[oldest..newest].iter().enumerate() {
            let Change::Write { at, bytes } = change else { continue };
            for page in at / PAGE..=(at + bytes.len() - 1) / PAGE {
                let known = *pages
                    .entry(page)
                    .or_insert_with(|| random.random_range(0..=newest - oldest));
                let mut end = (page + 1) * PAGE;
                if index >= known {
                    // The first change that a page does not have may have been in progress.
                    if !torn.insert(page) {
                        continue;
                    }
                    end = page * PAGE + random.random_range(0..PAGE / SECTOR) * SECTOR;
                }
                let (from, to) = ((page * PAGE).max(*at), end.min(at + bytes.len()));
                if from < to {
                    write(&mut content, from, &bytes[from - at..to - at]);
                }
            }
        }
        content.resize(size, 0);
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => write(content, *at, bytes),
            Self::Truncate { size } => content.resize(*size, 0),
        }
    }

    /// The size of a file of this size after it.
    fn size(&self, before: usize) -> usize {
        match self {
            Self::Write { at, bytes } => before.max(at + bytes.len()),
            Self::Truncate { size } => *size,
        }
    }
}

fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn record(kind: u8, at: u64, bytes: &[u8]) -> Vec<u8> {
        let mut record = vec![kind];
        record.extend(7_u64.to_le_bytes());
        record.extend(at.to_le_bytes());
        record.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        record.extend(bytes);
        record
    }

    fn image(records: &[Vec<u8>]) -> Image {
        let mut image = Image::default();
        image.replay(&records.concat());
        image
    }

    fn cut(image: &Image, left: Left) -> Contents {
        image.cut(left, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn what_was_synced_is_there_and_its_name_once_the_folder_was() {
        let mut records = vec![record(1, 0, b"a"), record(2, 0, b"one"), record(4, 0, b"")];
        assert!(cut(&image(&records), Left::Nothing).is_empty(), "a file without a name");
        records.extend([record(8, 0, b""), record(2, 3, b"two")]);
        let held = image(&records);
        assert_eq!(
            cut(&held, Left::Nothing),
            [("a".to_owned(), Some(b"one".to_vec()))].into()
        );
        assert_eq!(cut(&held, Left::All), held.now());
        assert_eq!(held.now()["a"].as_deref(), Some(b"onetwo".as_slice()));
        records.extend([record(5, 0, b"a\nb"), record(3, 1, b"")]);
        let held = image(&records);
        assert_eq!(cut(&held, Left::Nothing)["a"].as_deref(), Some(b"one".as_slice()));
        assert_eq!(held.now(), [("b".to_owned(), Some(b"o".to_vec()))].into());
    }

    #[test]
    fn what_is_in_a_folder_without_a_name_is_lost_with_it() {
        let mut records = vec![
            record(9, 0, b"f"),
            record(1, 0, b"f/a"),
            record(2, 0, b"one"),
            record(4, 0, b""),
        ];
        records.push(record(8, 0, b"f"));
        assert!(cut(&image(&records), Left::Nothing).is_empty());
        records.push(record(8, 0, b""));
        let expected = [("f".to_owned(), None), ("f/a".to_owned(), Some(b"one".to_vec()))];
        assert_eq!(cut(&image(&records), Left::Nothing), expected.into());
    }

    #[test]
    fn every_page_that_was_not_synced_may_be_old_new_or_torn() {
        let page = |byte: u8| vec![byte; PAGE];
        let mut records = vec![record(1, 0, b"a"), record(2, 0, &[page(1), page(1)].concat())];
        records.extend([
            record(4, 0, b""),
            record(8, 0, b""),
            record(2, 0, &[page(2), page(2)].concat()),
        ]);
        let held = image(&records);
        let mut random = StdRng::seed_from_u64(1);
        let mut seen = HashSet::new();
        for _ in 0..2000 {
            let content = held.cut(Left::Some, &mut random).remove("a").unwrap().unwrap();
            assert_eq!(content.len(), 2 * PAGE);
            for sector in content.chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
            }
            let kind = |page: &[u8]| (page[0], page[PAGE - 1]);
            seen.insert((kind(&content[..PAGE]), kind(&content[PAGE..])));
        }
        assert_eq!(seen.len(), 9, "old, new and torn, of each page by itself: {seen:?}");
    }

    #[test]
    fn what_was_cut_off_does_not_come_back_behind_a_later_size() {
        let records = [
            record(1, 0, b"a"),
            record(2, 0, b"old old old"),
            record(4, 0, b""),
            record(8, 0, b""),
            record(3, 0, b""),
            record(2, 8, b"new"),
        ];
        let held = image(&records);
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let content = held.cut(Left::Some, &mut random).remove("a").unwrap().unwrap();
            let legal: [&[u8]; 4] = [b"old old old", b"", &[0; 11], b"\0\0\0\0\0\0\0\0new"];
            assert!(legal.contains(&content.as_slice()), "{content:?}");
        }
    }
}
