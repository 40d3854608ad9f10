//! A TCP proxy that can be cut: a network that fails between a server and its database.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A proxy on this machine, until dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cut: Arc<watch::Sender<bool>>,
    frozen: Arc<watch::Sender<bool>>,
    forgotten: Arc<watch::Sender<()>>,
}

impl Proxy {
    /// Starts a proxy to `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(watch::Sender::new(false));
        let frozen = Arc::new(watch::Sender::new(false));
        let forgotten = Arc::new(watch::Sender::new(()));
        let (watching, freezing, forgetting) = (Arc::clone(&cut), Arc::clone(&frozen), Arc::clone(&forgotten));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut cut, mut frozen) = (watching.subscribe(), freezing.subscribe());
                let mut forgotten = forgetting.subscribe();
                tokio::spawn(async move {
                    // While it is cut, a connection ends as soon as it starts.
                    if *cut.borrow() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        biased;
                        _ = cut.wait_for(|cut| *cut) => return,
                        _ = frozen.wait_for(|frozen| *frozen) => {}
                        _ = forgotten.changed() => {}
                        _ = copy_bidirectional(&mut client, &mut server) => return,
                    }
                    // Connected, and silent.
                    drop(cut.wait_for(|cut| *cut).await);
                });
            }
        });
        Self {
            address,
            cut,
            frozen,
            forgotten,
        }
    }

    /// Starts a proxy to the server of this URL. Returns it, with the URL that leads through it.
    pub(crate) async fn before(url: &str) -> (Self, String) {
        let mut through = url::Url::parse(url).unwrap();
        let target = format!("{}:{}", through.host_str().unwrap(), through.port().unwrap_or(5432));
        let target = tokio::net::lookup_host(target).await.unwrap().next().unwrap();
        let started = Self::start(target).await;
        through.set_host(Some("127.0.0.1")).unwrap();
        through.set_port(Some(started.address.port())).unwrap();
        (started, through.to_string())
    }

    /// Ends every connection and accepts no new ones, or accepts them again.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Nothing more passes over the connections that are open now, which neither end notices; new ones work.
    pub(crate) fn forget(&self) {
        self.forgotten.send_replace(());
    }

    /// From now on nothing passes, although connections stay and new ones are accepted.
    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}
