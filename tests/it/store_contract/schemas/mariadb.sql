-- A schema with something of everything that a restore must bring back.
SET SESSION sql_mode = 'ALLOW_INVALID_DATES';
CREATE SEQUENCE tickets START WITH 5 INCREMENT BY 3 MAXVALUE 5000 CACHE 10 CYCLE;
CREATE TABLE parents (id bigint unsigned NOT NULL, part int NOT NULL, name varchar(40) CHARACTER SET latin1 COLLATE latin1_bin, PRIMARY KEY (id, part),
  KEY backwards (name DESC, part)) ENGINE=InnoDB ROW_FORMAT=COMPRESSED COMMENT='tab, ) ''le';
CREATE TABLE `chil``d, (ren` (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, parent bigint unsigned, part int, ticket bigint DEFAULT nextval(tickets),
  n int NOT NULL DEFAULT 3, seen int AS (n + 1) VIRTUAL INVISIBLE, stored decimal(10,2) AS (n * 1.5) STORED, hidden int INVISIBLE DEFAULT 8,
  c varchar(30) NOT NULL DEFAULT 'it''s, \\ (x' COMMENT 'a ''q'' \\ \nb, )', j json, e enum('a,b','c)','','''') DEFAULT 'c)', s set('x','y z','z'),
  b1 bit(1), b64 bit(64), y year, t time(6), d date DEFAULT '0000-00-00', dt datetime(3) DEFAULT '2020-01-01', z timestamp(3) NULL DEFAULT current_timestamp(3) ON UPDATE current_timestamp(3),
  m decimal(65,30), f float, g double, bin binary(4), vb varbinary(9), bl longblob, txt mediumtext CHARACTER SET utf16, ch char(4) CHARACTER SET utf8mb3,
  u uuid, i6 inet6, i4 inet4, pt point, geo geometry, coll geometrycollection,
  CONSTRAINT quoted CHECK (c <> 'it''s' AND c NOT REGEXP '^a\\.b$'),
  CONSTRAINT `ch,k` CHECK (n > 0 AND c <> 'CONSTRAINT `x` FOREIGN KEY (\\'),
  CONSTRAINT `to p` FOREIGN KEY (parent, part) REFERENCES parents (id, part) ON UPDATE CASCADE ON DELETE SET NULL,
  UNIQUE KEY beginning (c(5), n), FULLTEXT KEY words (c), KEY (j(20))) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE places (id int NOT NULL PRIMARY KEY, at point NOT NULL, SPATIAL KEY (at)) ENGINE=InnoDB;
CREATE TABLE parts (id int NOT NULL, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (to_days(day)) (PARTITION p0 VALUES LESS THAN (to_days('2024-01-01')), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parents VALUES (18446744073709551615, -1, 'é ß'), (0, 2, NULL);
INSERT INTO `chil``d, (ren` (id, parent, part, ticket, n, c, j, e, s, b1, b64, y, t, d, dt, z, m, f, g, bin, vb, bl, txt, ch, u, i6, i4, pt, geo, coll, hidden) VALUES
  (18446744073709551610, 18446744073709551615, -1, 5, 7, 'a\\\'"', '{"b": 1,  "a": "张"}', 'a,b', 'x,y z,z', b'1', b'1000000000000000000000000000000000000000000000000000000000000001', 1901, '-838:59:59.999999',
   '2010-00-00', '0000-00-00', '2024-03-31 02:30:00.123', 99999999999999999999999999999999999.123456789012345678901234567891, 0.1, 5e-324, x'00ff', x'', repeat(x'00ff5c27', 9000), '张三 🀄', '张',
   'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2001:db8::1', '10.0.0.1', ST_GeomFromText('POINT(0.1 -1e300)', 4326), ST_GeomFromText('POLYGON((0 0,0 1,1 1,0 0))'), ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))'), NULL),
  (3, NULL, NULL, NULL, 1, '', NULL, '', '', b'0', 0, 0, '838:59:59', '0000-00-00', NULL, NULL, -0.000000000000000000000000000001, -3.40282e38, -0e0, '', NULL, '', '', '', NULL, NULL, NULL, NULL, NULL, NULL, 1),
  (4, 0, 2, NULL, 2, 'trailing  ', 'null', '''', 'y z,z', NULL, NULL, 2155, NULL, '2011-02-30', '9999-12-31 23:59:59.999', '2038-01-19 03:14:07', 0, 16777216, 1.7976931348623157e308, 'abcd', x'00', NULL, 'x', 'ab', NULL, '::', '0.0.0.0', NULL, NULL, NULL, 2);
ALTER TABLE `chil``d, (ren` AUTO_INCREMENT = 18446744073709551613;
INSERT INTO places VALUES (1, ST_GeomFromText('POINT(1 2)')), (2, ST_GeomFromText('POINT(-0.5 1e-300)', 3857));
INSERT INTO parts VALUES (1, '2023-01-01'), (2, '2025-01-01');
DO nextval(tickets);
