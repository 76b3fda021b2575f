# `/` counts the rows, `/add` asks the worker to add one.
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

DATABASE = f"host={os.environ['DB_HOST']} port={os.environ['DB_PORT']} user=postgres connect_timeout=2"
CACHE = redis.Redis(os.environ["CACHE_HOST"], int(os.environ["CACHE_PORT"]), socket_timeout=2)


def rows():
    connection = psycopg2.connect(DATABASE)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM items")
        return cursor.fetchone()[0]
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            if self.path == "/add":
                CACHE.rpush("items", "one")
            status, text = 200, f"rows={rows()} api={os.environ['VERSION']}"
        except Exception as error:
            status, text = 503, f"{error!r}"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


server = Server(("", 8080), Handler)
end = lambda *_: threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, end)
server.serve_forever()
server.server_close()
sys.exit(0)
