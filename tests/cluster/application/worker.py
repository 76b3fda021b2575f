# Takes items from the queue and inserts them. An item is taken off the queue when it is inserted.
import os
import time

import psycopg2
import redis

DATABASE = f"host={os.environ['DB_HOST']} port={os.environ['DB_PORT']} user=postgres connect_timeout=2"
CACHE = redis.Redis(os.environ["CACHE_HOST"], int(os.environ["CACHE_PORT"]), socket_timeout=5)


def work():
    connection = psycopg2.connect(DATABASE)
    connection.autocommit = True
    while True:
        item = CACHE.lindex("items", 0)
        if item is None:
            time.sleep(0.1)
            continue
        connection.cursor().execute("INSERT INTO items (name) VALUES (%s)", (item.decode(),))
        CACHE.lpop("items")


while True:
    try:
        work()
    except Exception as error:
        print(repr(error), flush=True)
        time.sleep(0.2)
