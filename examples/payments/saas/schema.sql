-- The product's one table, of all customers. The two have invoices of the same ids, on purpose: what
-- keeps them apart must not be their names.
CREATE TABLE invoices (
	tenant_id text COLLATE "C" NOT NULL,
	id        int              NOT NULL,
	customer  text             NOT NULL,
	amount    bigint           NOT NULL, -- in cents
	frozen    boolean          NOT NULL DEFAULT false,
	paid      boolean          NOT NULL DEFAULT false,
	PRIMARY KEY (tenant_id, id)
);

INSERT INTO invoices (tenant_id, id, customer, amount, frozen) VALUES
	('acme', 17, 'Hotel Adler', 90000, false),
	('acme', 18, 'Druckerei Blum', 250000, false),
	('acme', 19, 'Baumarkt Cranz', 40000, true),
	('globex', 17, 'Transports Dubois', 1200000, false),
	('globex', 18, 'Atelier Estelle', 5000, false),
	('globex', 20, 'Garage Fontaine', 77000, false);
