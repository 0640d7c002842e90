// Ordinary work on a JVM: allocates, sorts, hashes, uses threads and lambdas; then asks for a token, over and over.
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.zip.CRC32;

public class Work {
  static String ask() throws Exception {
    String body = "{\"audience\":\"" + System.getenv("AUDIENCE") + "\"}";
    String request = "POST /v1/token HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
        + "Content-Type: application/json\r\nContent-Length: " + body.length() + "\r\n\r\n" + body;
    StringBuilder answer = new StringBuilder();
    try (SocketChannel agent = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      agent.connect(UnixDomainSocketAddress.of(System.getenv("AGENT_SOCKET")));
      agent.write(ByteBuffer.wrap(request.getBytes(StandardCharsets.UTF_8)));
      ByteBuffer buffer = ByteBuffer.allocate(65536);
      while (agent.read(buffer) >= 0) {
        answer.append(new String(buffer.array(), 0, buffer.position(), StandardCharsets.UTF_8));
        buffer.clear();
      }
    }
    String text = answer.toString();
    if (text.startsWith("HTTP/1.1 200")) return "{\"token\":true}";
    return text.substring(text.indexOf('{')).replaceAll("[\\r\\n]+", "");
  }

  static long work(int round) {
    String text = IntStream.range(0, 20_000).mapToObj(i -> "row " + (long) i * round).sorted()
        .collect(Collectors.joining(","));
    CRC32 sum = new CRC32();
    sum.update(text.getBytes(StandardCharsets.UTF_8));
    return sum.getValue();
  }

  public static void main(String[] arguments) throws Exception {
    System.out.println("{\"ready\":true}");
    for (int round = 1; ; round += 1) {
      final int number = round;
      Thread[] threads = new Thread[3];
      for (int i = 0; i < threads.length; i += 1) (threads[i] = new Thread(() -> work(number))).start();
      for (Thread thread : threads) thread.join();
      Thread.sleep(1000);
      System.out.println(ask());
    }
  }
}
