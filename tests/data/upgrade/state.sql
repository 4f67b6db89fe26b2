BEGIN TRANSACTION;
CREATE TABLE awaited_device (
	device TEXT NOT NULL, 
	journal TEXT NOT NULL, 
	first BIGINT NOT NULL, 
	PRIMARY KEY (device)
);
INSERT INTO "awaited_device" VALUES('air/zz','3942e2de3ffae774a8599776bf6de22d',4);
CREATE TABLE candidate (
	device VARCHAR NOT NULL, 
	first_us BIGINT NOT NULL, 
	last_us BIGINT NOT NULL, 
	messages BIGINT NOT NULL, 
	journal VARCHAR NOT NULL, 
	upto BIGINT NOT NULL, 
	PRIMARY KEY (device)
);
INSERT INTO "candidate" VALUES('air/zz',1767225600000000,1767225600000000,1,'3942e2de3ffae774a8599776bf6de22d',5);
CREATE TABLE delivery (
	"key" VARCHAR(80) NOT NULL, 
	channel VARCHAR(40) NOT NULL, 
	body TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	next_us BIGINT NOT NULL, 
	until_us BIGINT NOT NULL, 
	sent_us BIGINT, 
	last_error TEXT, 
	PRIMARY KEY ("key", channel)
);
CREATE TABLE device (
	"row" INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	interval_s INTEGER, 
	clock VARCHAR NOT NULL, 
	rated_kw FLOAT, 
	modulus FLOAT, 
	since_us BIGINT NOT NULL, 
	until_us BIGINT, 
	recorded_us BIGINT NOT NULL, 
	replaced_us BIGINT, 
	PRIMARY KEY ("row")
);
CREATE TABLE device_metadata (
	device VARCHAR NOT NULL, 
	model VARCHAR, 
	lat FLOAT, 
	lon FLOAT, 
	time_zone VARCHAR, 
	units JSON NOT NULL, 
	counters JSON NOT NULL, 
	at_us BIGINT NOT NULL, 
	PRIMARY KEY (device)
);
CREATE TABLE device_status (
	device VARCHAR NOT NULL, 
	online BOOLEAN NOT NULL, 
	firmware VARCHAR, 
	interval_s INTEGER, 
	at_us BIGINT NOT NULL, 
	PRIMARY KEY (device)
);
INSERT INTO "device_status" VALUES('air/a1',1,NULL,NULL,1767225600000000);
CREATE TABLE dirty (
	id INTEGER NOT NULL, 
	journal TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	pairs BLOB NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "dirty" VALUES(1,'3942e2de3ffae774a8599776bf6de22d',2,X'C0E2590001000000C0E2590002000000');
CREATE TABLE due_window (
	indicator TEXT NOT NULL, 
	zone TEXT NOT NULL, 
	window TEXT NOT NULL, 
	start_us BIGINT NOT NULL, 
	stop_us BIGINT NOT NULL, 
	ready_us BIGINT NOT NULL, 
	generation BIGINT NOT NULL, 
	PRIMARY KEY (indicator, zone, window, start_us)
);
CREATE TABLE episode (
	id VARCHAR NOT NULL, 
	rule VARCHAR NOT NULL, 
	zone VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	severity VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	start_us BIGINT NOT NULL, 
	end_us BIGINT, 
	fired_us BIGINT, 
	indicator VARCHAR NOT NULL, 
	window VARCHAR NOT NULL, 
	value FLOAT, 
	last FLOAT, 
	threshold FLOAT, 
	ack_actor VARCHAR, 
	ack_comment VARCHAR, 
	ack_us BIGINT, 
	updated_us BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE judged (
	journal TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	rebuilding BOOLEAN NOT NULL, 
	PRIMARY KEY (journal)
);
CREATE TABLE notice (
	id INTEGER NOT NULL, 
	episode VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	time_us BIGINT NOT NULL, 
	"key" VARCHAR NOT NULL, 
	body JSON NOT NULL, 
	recorded_us BIGINT NOT NULL, 
	sent_us BIGINT, 
	attempts INTEGER NOT NULL, 
	suppressed BOOLEAN NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
CREATE TABLE placement (
	"row" INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	zones JSON NOT NULL, 
	lat FLOAT, 
	lon FLOAT, 
	since_us BIGINT NOT NULL, 
	until_us BIGINT, 
	recorded_us BIGINT NOT NULL, 
	replaced_us BIGINT, 
	PRIMARY KEY ("row")
);
CREATE TABLE rejected (
	journal TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	item INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	device TEXT NOT NULL, 
	topic TEXT NOT NULL, 
	received_us BIGINT NOT NULL, 
	payload BLOB NOT NULL, 
	PRIMARY KEY (journal, position, item)
);
INSERT INTO "rejected" VALUES('3942e2de3ffae774a8599776bf6de22d',3,0,'bad_json','Expecting property name enclosed in double quotes at character 1','','air/a1','qala/1/air/a1/t',1767225600000000,X'7B');
INSERT INTO "rejected" VALUES('3942e2de3ffae774a8599776bf6de22d',4,0,'unknown_device','not in the registry','','air/zz','qala/1/air/zz/t',1767225600000000,X'7B2274223A313736373232353630303030302C2276223A7B22706D325F35223A317D7D');
CREATE TABLE rejected_dropped (
	reason TEXT NOT NULL, 
	rows BIGINT NOT NULL, 
	PRIMARY KEY (reason)
);
CREATE TABLE reopened_device (
	device VARCHAR NOT NULL, 
	PRIMARY KEY (device)
);
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE zone (
	"row" INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	names JSON NOT NULL, 
	geometry JSON NOT NULL, 
	parent VARCHAR, 
	free_flow_kmh FLOAT, 
	length_m FLOAT, 
	rated_kw FLOAT, 
	recorded_us BIGINT NOT NULL, 
	replaced_us BIGINT, 
	PRIMARY KEY ("row")
);
CREATE INDEX dirty_position ON dirty (journal, number);
CREATE INDEX due_window_ready ON due_window (ready_us);
CREATE INDEX episode_by_rule ON episode (rule, zone, start_us);
CREATE INDEX episode_by_state ON episode (state, start_us);
CREATE INDEX ix_notice_episode ON notice (episode);
CREATE INDEX notice_unsent ON notice (sent_us, suppressed);
CREATE INDEX delivery_open ON delivery (sent_us, next_us);
CREATE INDEX device_id ON device (id, replaced_us);
CREATE INDEX zone_id ON zone (id, replaced_us);
CREATE INDEX placement_id ON placement (id, replaced_us);
CREATE INDEX rejected_received ON rejected (received_us, journal, position, item);
CREATE INDEX rejected_device ON rejected (device);
CREATE INDEX rejected_reason ON rejected (reason, device);
COMMIT;
