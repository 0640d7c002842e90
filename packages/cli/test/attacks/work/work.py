# Ordinary work on Python: allocates, compresses, hashes, uses threads and regular expressions, forks; then asks
# for a token, over and over.
import hashlib, http.client, json, os, random, re, socket, sqlite3, ssl, tempfile, threading, time, zlib


class AgentConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["AGENT_SOCKET"])


def ask():
    agent = AgentConnection("agent")
    body = json.dumps({"audience": os.environ["AUDIENCE"]})
    agent.request("POST", "/v1/token", body, {"Content-Type": "application/json"})
    answer = agent.getresponse()
    text = answer.read().decode()
    agent.close()
    return '{"token":true}' if answer.status == 200 else text.replace("\n", " ")


def work(number):
    rows = [{"i": i, "text": "row %d" % (i * number)} for i in range(5000)]
    random.shuffle(rows)
    text = json.dumps(sorted(rows, key=lambda row: row["text"])).encode()
    with tempfile.TemporaryFile() as file:
        file.write(zlib.compress(text))
        file.seek(0)
        hashlib.sha256(zlib.decompress(file.read())).hexdigest()
    re.findall(r"row (\d+)7\b", text.decode())


print('{"ready":true}', flush=True)
context = ssl.create_default_context()
database = sqlite3.connect(":memory:")
database.execute("create table work (round integer)")
number = 0
while True:
    number += 1
    threads = [threading.Thread(target=work, args=(number,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.execute("insert into work values (?)", (number,))
    child = os.fork()
    if child == 0:
        work(number)
        os._exit(0)
    time.sleep(1)
    print(ask(), flush=True)
    os.waitpid(child, 0)
