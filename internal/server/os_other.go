//go:build !unix

package server

import "io/fs"

func deviceOf(fs.FileInfo) (device uint64, ok bool) { return 0, false }

func openFileLimit() (files uint64, ok bool) { return 0, false }

func mayWrite(string) error { return nil }
