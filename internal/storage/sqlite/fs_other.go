//go:build !linux

package sqlite

// checkFileSystem knows the types of Linux only; elsewhere the manual's warning has to do.
func checkFileSystem(string) error { return nil }

// free and diskFull do not know the room here, so a failed write is never blamed on a full disk.
func free(string) (uint64, bool) { return 0, false }

func diskFull(string) bool { return false }
