// A service on the spiffe crate. Only SPIFFE_ENDPOINT_SOCKET tells it where it is.
//   program AUDIENCE   prints what it gets as JSON lines, each update of its X509Source, and twice a second what
//                      that holds
use spiffe::{JwtSource, WorkloadApiClient, X509Source};

#[tokio::main]
async fn main() {
    let audience = std::env::args().nth(1).expect("an audience");
    if let Err(error) = run(&audience).await {
        println!("{{\"event\":\"failed\",\"error\":{:?}}}", error.to_string());
        std::process::exit(1);
    }
}

async fn run(audience: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = WorkloadApiClient::connect_env().await?;
    let context = client.fetch_x509_context().await?;
    let id = context
        .default_svid()
        .expect("an SVID")
        .spiffe_id()
        .to_string();
    println!("{{\"event\":\"svid\",\"id\":\"{id}\"}}");
    client.fetch_x509_bundles().await?;
    client.fetch_jwt_bundles().await?;
    let svid = client.fetch_jwt_svid([audience], None).await?;
    let valid = client.validate_jwt_token(audience, svid.token()).await?;
    println!(
        "{{\"event\":\"jwt\",\"id\":\"{}\",\"valid\":\"{}\"}}",
        svid.spiffe_id(),
        valid.spiffe_id()
    );
    let jwt = JwtSource::new().await?;
    let again = jwt.fetch_jwt_svid([audience]).await?;
    println!(
        "{{\"event\":\"jwt-source\",\"id\":\"{}\"}}",
        again.spiffe_id()
    );
    let source = X509Source::new().await?;
    let mut updates = source.updated();
    loop {
        match source.svid() {
            Ok(svid) => println!("{{\"event\":\"source\",\"id\":\"{}\"}}", svid.spiffe_id()),
            Err(_) => println!("{{\"event\":\"withdrawn\"}}"),
        }
        let wait = std::time::Duration::from_millis(500);
        while tokio::time::timeout(wait, updates.changed()).await.is_err() {
            hold(&source);
        }
    }
}

fn hold(source: &X509Source) {
    match source.svid() {
        Ok(_) => println!("{{\"event\":\"held\"}}"),
        Err(error) => println!("{{\"event\":\"none\",\"error\":{:?}}}", error.to_string()),
    }
}
