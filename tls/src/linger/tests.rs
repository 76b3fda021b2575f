use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

#[tokio::test]
async fn a_client_that_is_still_sending_gets_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await?;
        // More than all buffers on the path hold.
        stream.write_all(&vec![b'x'; 16 << 20]).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    });
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = Lingering::new(stream);
    stream.write_all(b"too large").await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(client.await.unwrap().unwrap(), "too large");
}
