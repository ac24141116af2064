//go:build unix

package access

import (
	"io/fs"
	"syscall"
)

// OwnerOf is the user that a file belongs to, where files belong to users.
func OwnerOf(info fs.FileInfo) (user uint32, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return s.Uid, true
}
