//! A proxy before an S3 server that fails as networks and servers do. It reads whole HTTP messages, one request a connection, and
//! what becomes of each is decided by a plan that the test gives.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks while the request is sent: the server sees a part of it.
    RequestCutOff,
    /// The server carries it out, and the connection breaks before its answer.
    AnswerLost,
    /// The connection breaks in the middle of the answer's body.
    AnswerCutOff,
    /// The answer is shorter than it was, and says so consistently.
    AnswerShortened,
    /// One bit of the answer's body is another one.
    AnswerChanged,
    /// The answer begins, and then nothing comes any more.
    AnswerStalls,
    /// The answer comes late.
    Slow(Duration),
    /// The server answers with this status and error code, without doing anything.
    Refused(u16, &'static str),
    /// Something between answers `200 OK` and an error's text, and the server never hears of it.
    ErrorInside200,
    /// The request reaches the server twice; the second answer comes back.
    Doubled,
    /// A server that does not know `If-None-Match`: what is there is overwritten.
    PreconditionIgnored,
    /// The server stores it and says so, and has lost it a moment later.
    Forgotten,
    /// The server stores it and says so, and one bit of it is another one a moment later.
    Rotten,
}

/// What a plan is told of a request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The how-manieth request to the proxy, from 0.
    pub number: u64,
    /// `GET`, `PUT`, ….
    pub method: String,
    /// Path and query, without the bucket.
    pub target: String,
}

impl Seen {
    /// Whether it fetches an object, or a listing.
    pub fn reads(&self) -> bool {
        self.method == "GET"
    }

    /// Whether it stores an object.
    pub fn stores(&self) -> bool {
        self.method == "PUT"
    }
}

/// Decides what becomes of a request.
pub type Plan = Box<dyn Fn(&Seen) -> Option<Fault> + Send + Sync>;

/// A running proxy. Stops when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    /// The folder in which the server keeps the bucket's objects.
    folder: PathBuf,
    bucket: String,
    plan: Mutex<Arc<Plan>>,
    requests: AtomicU64,
    faults: Mutex<Vec<(Fault, Seen)>>,
}

impl Proxy {
    /// A proxy before the embedded server at `upstream`, whose bucket lies in `folder`. It begins without faults.
    pub async fn start(upstream: SocketAddr, folder: PathBuf, bucket: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan: Plan = Box::new(|_| None);
        let shared = Arc::new(Shared {
            upstream,
            folder,
            bucket: bucket.to_owned(),
            plan: Mutex::new(Arc::new(plan)),
            requests: AtomicU64::new(0),
            faults: Mutex::new(Vec::new()),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                // A broken connection is what this is for.
                tokio::spawn(async move { drop(serve(client, &shared).await) });
            }
        });
        Self { address, shared, task }
    }

    /// Its address, for a client.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on requests fare as the plan says. The count of requests begins anew, and the list of faults.
    pub fn fail(&self, plan: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) {
        let plan: Plan = Box::new(plan);
        *self.shared.plan.lock().unwrap() = Arc::new(plan);
        self.shared.requests.store(0, Ordering::SeqCst);
        self.shared.faults.lock().unwrap().clear();
    }

    /// The faults that were carried out since the plan was made.
    pub fn faults(&self) -> Vec<(Fault, Seen)> {
        self.shared.faults.lock().unwrap().clone()
    }

    /// The requests since the plan was made.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message: its head with the empty line, and its body.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }

    /// The head with some lines left out and others added.
    fn head_with(&self, without: &[&str], added: &[String]) -> String {
        let kept = self.head.trim_end().lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !without.iter().any(|other| name.eq_ignore_ascii_case(other))
        });
        let mut lines: Vec<String> = kept.map(str::to_owned).collect();
        lines.extend(added.iter().cloned());
        format!("{}\r\n\r\n", lines.join("\r\n"))
    }
}

/// Reads a head, and as much of the body as came with it.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<Message>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok(Some(Message { head: String::from_utf8_lossy(&bytes).into_owned(), body }));
        }
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece[..read]);
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let Some(mut request) = read_head(&mut client).await? else { return Ok(()) };
    if request.header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let length = request.length().unwrap_or(0);
    while request.body.len() < length {
        let mut piece = [0; 4 << 10];
        let read = client.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        request.body.extend_from_slice(&piece[..read]);
    }
    let mut words = request.head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let target = target.strip_prefix(&format!("/{}/", shared.bucket)).unwrap_or(target).to_owned();
    let number = shared.requests.fetch_add(1, Ordering::SeqCst);
    let seen = Seen { number, method: method.to_owned(), target };
    let plan = Arc::clone(&shared.plan.lock().unwrap());
    let fault = plan(&seen);
    if let Some(fault) = fault {
        shared.faults.lock().unwrap().push((fault, seen.clone()));
    }
    match fault {
        Some(Fault::RequestCutOff) => {
            let mut server = TcpStream::connect(shared.upstream).await?;
            server.write_all(request.head.as_bytes()).await?;
            server.write_all(&request.body[..length / 2]).await
        }
        Some(Fault::Refused(status, code)) => {
            let body =
                format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as planned</Message></Error>");
            let body = if method == "HEAD" { String::new() } else { body };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} Planned\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await?;
            client.write_all(body.as_bytes()).await
        }
        Some(Fault::ErrorInside200) if method != "HEAD" => {
            let body = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>as planned</Message></Error>";
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await?;
            client.write_all(body.as_bytes()).await
        }
        _ => {
            if fault == Some(Fault::Doubled) {
                ask(shared, &request).await?;
            }
            if fault == Some(Fault::PreconditionIgnored) && seen.stores() {
                let name = seen.target.split('?').next().unwrap_or_default();
                let _ = std::fs::remove_file(shared.folder.join(name));
            }
            let answer = ask(shared, &request).await?;
            if matches!(fault, Some(Fault::Forgotten | Fault::Rotten)) && seen.stores() {
                spoil(&shared.folder.join(&seen.target), fault == Some(Fault::Forgotten))?;
            }
            reply(&mut client, answer, fault, method == "HEAD").await
        }
    }
}

/// Removes or changes a file of the server behind its back.
fn spoil(file: &Path, is_lost: bool) -> std::io::Result<()> {
    let file = PathBuf::from(file.to_string_lossy().split('?').next().unwrap_or_default());
    if is_lost {
        return std::fs::remove_file(file);
    }
    let mut bytes = std::fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(file, bytes)
}

/// The server's answer to the whole request.
async fn ask(shared: &Shared, request: &Message) -> std::io::Result<Message> {
    let mut server = TcpStream::connect(shared.upstream).await?;
    // Not signed, so they may be changed.
    let head = request.head_with(&["connection", "expect"], &["connection: close".to_owned()]);
    server.write_all(head.as_bytes()).await?;
    server.write_all(&request.body).await?;
    let broken = || std::io::Error::other("the server ended without an answer");
    let mut answer = read_head(&mut server).await?.ok_or_else(broken)?;
    server.read_to_end(&mut answer.body).await?;
    Ok(answer)
}

async fn reply(
    client: &mut TcpStream,
    mut answer: Message,
    fault: Option<Fault>,
    is_head: bool,
) -> std::io::Result<()> {
    let is_chunked = answer.header("transfer-encoding").is_some();
    let mut head = answer.head_with(&["connection"], &["connection: close".to_owned()]);
    let half = answer.body.len() / 2;
    match fault {
        Some(Fault::AnswerLost) => return Ok(()),
        Some(Fault::AnswerCutOff) => answer.body.truncate(half),
        Some(Fault::AnswerChanged) => {
            if let Some(byte) = answer.body.get_mut(half) {
                *byte ^= 1;
            }
        }
        Some(Fault::AnswerShortened) if !is_chunked && !is_head => {
            answer.body.truncate(half);
            head = answer.head_with(
                &["connection", "content-length"],
                &[format!("content-length: {half}"), "connection: close".to_owned()],
            );
        }
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    client.write_all(head.as_bytes()).await?;
    if fault == Some(Fault::AnswerStalls) {
        client.write_all(&answer.body[..half]).await?;
        client.flush().await?;
        // Until the client gives up.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        return Ok(());
    }
    client.write_all(&answer.body).await?;
    client.flush().await
}
