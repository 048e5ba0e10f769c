//! `Socket`: a client's TCP connection, encrypted or not, and its options.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The maximum number of response bytes that the kernel holds unsent. With more, a client that reads slowly would look
/// like one that does not read: the kernel accepts more bytes only after it has sent a third of those that it holds.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MAX_UNSENT_BYTES: u32 = 128 << 10;

/// The time without traffic after which the kernel checks that the client still exists.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A client's connection.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Returns the error of the connection itself, if any. A reset shows here even after the client's last byte.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
}

impl Socket for TcpStream {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.take_error()
    }
}

impl Socket for TlsStream<TcpStream> {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.get_ref().0.take_error()
    }
}

/// Sets the options of an accepted connection.
pub(crate) fn set_options(stream: &TcpStream) {
    if let Err(error) = try_set_options(stream) {
        tracing::debug!(%error, "setting a TCP option failed; small responses may be delayed");
    }
}

fn try_set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 6))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    Ok(())
}
