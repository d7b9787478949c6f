//! Calls by path with bytes, for every RPC there is without naming any.

use hyper_util::rt::TokioIo;
use prost::bytes::{Buf, BufMut};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use warren_client::TlsIdentity;

/// Messages as bytes.
#[derive(Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; src.remaining()];
        src.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

/// Sends one message and gives the first answer, if the stream has one.
pub async fn call(channel: &Channel, path: &str, body: Vec<u8>) -> Result<Option<Vec<u8>>, Status> {
    call_with(channel, path, Request::new(()), body).await
}

/// The same, with the metadata of this request.
pub async fn call_with(
    channel: &Channel,
    path: &str,
    request: Request<()>,
    body: Vec<u8>,
) -> Result<Option<Vec<u8>>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let path: PathAndQuery = path.parse().unwrap();
    let input = tokio_stream::iter([body]);
    let answer = grpc
        .streaming(request.map(|()| input), path, BytesCodec)
        .await?;
    let mut answers = answer.into_inner();
    match tokio::time::timeout(super::setup::PATIENCE, answers.message()).await {
        Ok(first) => first,
        Err(_) => panic!("no answer"),
    }
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

#[derive(Clone)]
pub enum Way {
    Unix(PathBuf),
    Tls(SocketAddr, Arc<rustls::ClientConfig>),
}

impl Service<Uri> for Way {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _uri: Uri) -> Self::Future {
        let way = self.clone();
        Box::pin(async move {
            let io: Box<dyn Io> = match way {
                Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Self::Tls(address, config) => {
                    let tcp = TcpStream::connect(address).await?;
                    tcp.set_nodelay(true)?;
                    let name = warren_security::server_name();
                    Box::new(TlsConnector::from(config).connect(name, tcp).await?)
                }
            };
            Ok(TokioIo::new(io))
        })
    }
}

pub async fn channel(way: Way) -> Channel {
    Endpoint::from_static("http://test")
        .connect_with_connector(way)
        .await
        .unwrap()
}

pub async fn tls_channel(address: SocketAddr, identity: &TlsIdentity) -> Channel {
    let own = identity.own.as_ref().map(|(c, k)| (c.as_str(), k.as_str()));
    let mut config = warren_security::client_config(&identity.ca_pem, own).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    channel(Way::Tls(address, Arc::new(config))).await
}
