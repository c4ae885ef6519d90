package storage

// reach says that one of the rare branches of recovery was taken, so that a proof
// by chance can show that chance has led it there.
func (db *DB) reach(branch string) {
	if db.o.reached != nil {
		db.o.reached(branch)
	}
}
