"""The paper's tables and figures by one command: plan, data and splits, runs that go on, tables from what they left."""
