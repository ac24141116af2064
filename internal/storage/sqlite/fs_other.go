//go:build !linux

package sqlite

// checkFileSystem knows the types of Linux only; elsewhere the manual's warning has to do.
func checkFileSystem(string) error { return nil }

func free(string) (uint64, bool) { return 0, false }

func diskFull(string) bool { return false }
