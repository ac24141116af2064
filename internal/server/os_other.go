//go:build !unix

package server

import "io/fs"

func ownerOf(fs.FileInfo) (user uint32, ok bool) { return 0, false }

func deviceOf(fs.FileInfo) (device uint64, ok bool) { return 0, false }

func openFileLimit() (files uint64, ok bool) { return 0, false }
