# Makes the table, once.
import os

import psycopg2

connection = psycopg2.connect(f"host={os.environ['DB_HOST']} port={os.environ['DB_PORT']} user=postgres")
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("CREATE TABLE IF NOT EXISTS items (id serial PRIMARY KEY, name text)")
cursor.execute("CREATE TABLE IF NOT EXISTS migrations (version text)")
cursor.execute("INSERT INTO migrations VALUES (%s)", (os.environ["VERSION"],))
print("the tables are there", flush=True)
