//! The guides: documents of the repository that the server shows, too.

/// A guide.
pub(super) struct Guide {
    /// How the guides link it.
    pub(super) file: &'static str,
    /// Where it is on a server.
    pub(super) path: &'static str,
    /// Its text, as Markdown.
    pub(super) text: &'static str,
}

/// All of them.
pub(super) const GUIDES: [Guide; 2] = [
    Guide {
        file: "receiving.md",
        path: "/guide",
        text: include_str!("../../docs/receiving.md"),
    },
    Guide {
        file: "requests.md",
        path: "/guide/requests",
        text: include_str!("../../docs/requests.md"),
    },
];
