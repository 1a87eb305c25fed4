-- A schema with something of everything that a restore must bring back.
CREATE TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT COLLATE NOCASE NOT NULL DEFAULT 'it''s' CHECK (length(name) < 50),
  mixed, short varchar(3) UNIQUE, "n (umber" numeric, CONSTRAINT "either, or" CHECK (name <> '' OR mixed IS NOT NULL));
CREATE TABLE "child ""ren" (a TEXT NOT NULL, b INT NOT NULL, parent INTEGER REFERENCES parents ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
  twice INT GENERATED ALWAYS AS (b * 2) VIRTUAL, thrice INT AS (b * 3) STORED, PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE strictly (id INT PRIMARY KEY NOT NULL, any_thing ANY, i INTEGER, r REAL, t TEXT, b BLOB) STRICT;
CREATE TABLE numbered (id INTEGER PRIMARY KEY AUTOINCREMENT, w TEXT);
CREATE UNIQUE INDEX "one (name" ON parents (lower(name)) WHERE mixed IS NULL;
CREATE INDEX parents_sorted ON parents (name COLLATE RTRIM DESC, "n (umber");
CREATE UNIQUE INDEX child_once ON "child ""ren" (a);
INSERT INTO parents (id, name, mixed, short, "n (umber") VALUES (7, 'Ada', 1, 'longer than three', '00123'), (8, '张三', '1', 'x', 9007199254740993),
  (9, 'b', x'0031', NULL, 1.5), (10, 'c', -0.0, x'', 'text'), (11, 'd', cast(x'610062' AS text), '', 9e999), (12, 'e', NULL, 5, 1e400);
INSERT INTO "child ""ren" (a, b, parent) VALUES ('x', 1, 7), ('y', 1, NULL), ('z', -5, 8);
INSERT INTO strictly VALUES (1, '123', 5, 1.0, '00', x''), (2, 123, NULL, -0.0, '', NULL), (3, x'31', 9223372036854775807, 1e308, 'a', x'00');
INSERT INTO numbered VALUES (5000, 'gone'); DELETE FROM numbered;
INSERT INTO parents (id, name) VALUES (999, 'gone too'); DELETE FROM parents WHERE id = 999;
