// A service on java-spiffe. Only SPIFFE_ENDPOINT_SOCKET tells it where it is.
//   client.jar AUDIENCE   prints what it gets as JSON lines, each X.509 context that comes, and twice a second what
//                         its X509Source holds
//   ACCEPT   SPIFFE ID of the peer. With PEER, host:port, it calls that peer over mTLS; without, it serves
import io.spiffe.bundle.x509bundle.X509Bundle;
import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import io.spiffe.workloadapi.X509Source;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import java.time.Instant;
import java.util.Set;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

public class Client {
  /** Prints an event; fields are names and values by turns. */
  static synchronized void tell(String event, Object... fields) {
    StringBuilder line = new StringBuilder("{\"event\":\"" + event + "\"");
    for (int i = 0; i < fields.length; i += 2) {
      String value = String.valueOf(fields[i + 1]);
      if (fields[i + 1] instanceof String)
        value = "\"" + value.replaceAll("[\"\\\\\\p{Cntrl}]", " ") + "\"";
      line.append(",\"").append(fields[i]).append("\":").append(value);
    }
    System.out.println(line.append("}"));
  }

  static String serial(X509Svid svid) {
    return svid.getLeaf().getSerialNumber().toString(16);
  }

  /** All that went wrong, from the outside in. */
  static String reason(Throwable error) {
    return error.getCause() == null ? error.toString() : error + ": " + reason(error.getCause());
  }

  static String status(Throwable error) {
    for (Throwable at = error; at != null; at = at.getCause())
      if (at instanceof io.grpc.StatusRuntimeException refused) return refused.getStatus().getCode().name();
    return reason(error);
  }

  interface Attempt {
    void run() throws Exception;
  }

  static void expectRefusal(String event, Attempt attempt) {
    try {
      attempt.run();
      tell(event, "code", "OK");
    } catch (Exception error) {
      tell(event, "code", status(error));
    }
  }

  static void fetch(WorkloadApiClient client, String audience) throws Exception {
    tell("svid", "id", client.fetchX509Context().getDefaultSvid().getSpiffeId().toString());
    tell("bundles", "x509", client.fetchX509Bundles().getBundles().size(),
        "jwt", client.fetchJwtBundles().getBundles().size());
    JwtSvid svid = client.fetchJwtSvid(audience);
    tell("jwt", "id", svid.getSpiffeId().toString(),
        "valid", client.validateJwtSvid(svid.getToken(), audience).getSpiffeId().toString());
    expectRefusal("several", () -> client.fetchJwtSvid(audience, "b"));
    expectRefusal("other", () -> client.validateJwtSvid(svid.getToken(), "other"));
    try (JwtSource source = DefaultJwtSource.newSource()) {
      String token = source.fetchJwtSvid(audience).getToken();
      tell("jwt-source", "id", JwtSvid.parseAndValidate(token, source, Set.of(audience)).getSpiffeId().toString());
    }
  }

  static void watch(WorkloadApiClient client) {
    client.watchX509Context(new Watcher<X509Context>() {
      @Override
      public void onUpdate(X509Context update) {
        X509Svid svid = update.getDefaultSvid();
        tell("context", "id", svid.getSpiffeId().toString(), "serial", serial(svid));
      }

      @Override
      public void onError(Throwable error) {
        tell("error", "error", reason(error));
      }
    });
  }

  static void hold(X509Source source) throws Exception {
    for (; ; Thread.sleep(500)) {
      try {
        X509Svid svid = source.getX509Svid();
        X509Bundle bundle = source.getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain());
        boolean expired = svid.getLeaf().getNotAfter().toInstant().isBefore(Instant.now());
        tell("held", "id", svid.getSpiffeId().toString(), "serial", serial(svid), "expired", expired,
            "authorities", bundle.getX509Authorities().size());
      } catch (Exception error) {
        tell("none", "error", reason(error));
      }
    }
  }

  static String peerOf(SSLSocket socket) throws Exception {
    X509Certificate leaf = (X509Certificate) socket.getSession().getPeerCertificates()[0];
    return leaf.getSubjectAlternativeNames().iterator().next().get(1).toString();
  }

  static void serve(SSLContext tls) throws Exception {
    SSLServerSocket server = (SSLServerSocket) tls.getServerSocketFactory().createServerSocket(0);
    server.setNeedClientAuth(true);
    tell("serving", "port", server.getLocalPort());
    while (true) {
      try (SSLSocket socket = (SSLSocket) server.accept()) {
        socket.startHandshake();
        tell("caller", "id", peerOf(socket));
        socket.getOutputStream().write("hello".getBytes(StandardCharsets.UTF_8));
      } catch (Exception error) {
        tell("refused", "error", reason(error));
      }
    }
  }

  static void call(SSLContext tls, String[] peer) {
    try (SSLSocket socket =
        (SSLSocket) tls.getSocketFactory().createSocket(peer[0], Integer.parseInt(peer[1]))) {
      String text = new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      tell("server", "id", peerOf(socket), "text", text);
    } catch (Exception error) {
      tell("unreached", "error", reason(error));
    }
  }

  static void talk(X509Source source, SpiffeId accepted, String peer) throws Exception {
    SslContextOptions options = SslContextOptions.builder()
        .x509Source(source)
        .acceptedSpiffeIdsSupplier(() -> Set.of(accepted))
        .build();
    SSLContext tls = SpiffeSslContextFactory.getSslContext(options);
    if (peer == null) serve(tls);
    else call(tls, peer.split(":"));
  }

  public static void main(String[] arguments) throws Exception {
    String accepted = System.getenv("ACCEPT");
    if (accepted != null) {
      try (X509Source source = DefaultX509Source.newSource()) {
        talk(source, SpiffeId.parse(accepted), System.getenv("PEER"));
      }
      return;
    }
    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
      fetch(client, arguments[0]);
      watch(client);
      // Waits for ever if it is denied, and says nothing.
      try (X509Source source = DefaultX509Source.newSource()) {
        hold(source);
      }
    } catch (Exception error) {
      tell("failed", "code", status(error), "error", reason(error));
      System.exit(1);
    }
  }
}
