package identity

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// What Hash asks of a guesser: OWASP's Password Storage Cheat Sheet, argon2id
// with 19 MiB, two passes, one lane. A Raspberry Pi 4 takes about 0.1 s for it.
const (
	hashMemory = 19456 // KiB
	hashTime   = 2
	hashLanes  = 1
	hashSalt   = 16 // bytes
	hashLength = 32 // bytes
)

// What is accepted from other tools. A hash is trusted configuration, but one
// that takes a gigabyte or a minute would stop a small board at each login.
const (
	maxMemory = 256 << 10 // KiB
	maxTime   = 16
	maxLanes  = 16
	maxCost   = 14 // of bcrypt, about 10 s on a small board
)

var errHash = errors.New("password is neither an argon2id nor a bcrypt hash; make one with holdfast passwd")

// Hash gives the argon2id hash of password as a PHC string,
//
//	$argon2id$v=19$m=19456,t=2,p=1${salt}${hash}
//
// salt and hash in base64 without padding. Each call draws a new salt. It fails
// on an empty password.
func Hash(password []byte) (string, error) {
	if len(password) == 0 {
		return "", errors.New("password is empty")
	}
	salt := make([]byte, hashSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("draw salt: %w", err)
	}
	h := argon{memory: hashMemory, time: hashTime, lanes: hashLanes, salt: salt}
	h.sum = h.of(password, hashLength)
	return h.String(), nil
}

// Check says whether password is the one that hash was made of: argon2id as a
// PHC string, or bcrypt ($2a$, $2b$, $2y$). The hashes are compared in constant
// time. What is not a hash matches nothing.
func Check(hash string, password []byte) bool {
	if CheckHash(hash) != nil {
		return false
	}
	if strings.HasPrefix(hash, "$2") {
		return bcrypt.CompareHashAndPassword([]byte(hash), password) == nil
	}
	h, err := parseArgon(hash)
	if err != nil {
		return false
	}
	return subtle.ConstantTimeCompare(h.of(password, len(h.sum)), h.sum) == 1
}

// CheckHash says what is wrong with a hash, without a password. The error never
// quotes the hash: it may be a password that was written down by mistake.
func CheckHash(hash string) error {
	if !strings.HasPrefix(hash, "$2") {
		_, err := parseArgon(hash)
		return err
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || len(hash) != 60 {
		return errHash
	}
	if cost > maxCost {
		return fmt.Errorf("password is a bcrypt hash of cost %d, at most %d is taken; make one with holdfast passwd", cost, maxCost)
	}
	return nil
}

// argon is an argon2id hash taken apart.
type argon struct {
	memory, time uint32
	lanes        uint8
	salt, sum    []byte
}

func (h argon) of(password []byte, n int) []byte {
	return argon2.IDKey(password, h.salt, h.time, h.memory, h.lanes, uint32(n))
}

func (h argon) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, h.memory, h.time, h.lanes, b64(h.salt), b64(h.sum))
}

func parseArgon(s string) (argon, error) {
	parts := strings.Split(s, "$") // "", argon2id, v=, m=,t=,p=, salt, hash
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return argon{}, errHash
	}
	if parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return argon{}, fmt.Errorf("password is an argon2id hash of another version than %d; make one with holdfast passwd", argon2.Version)
	}
	var h argon
	var err error
	if n, _ := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.lanes); n != 3 {
		return argon{}, errHash
	}
	if h.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil {
		return argon{}, errHash
	}
	if h.sum, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil {
		return argon{}, errHash
	}
	if h.String() != s { // blanks, leading zeros, a second parameter: not the form
		return argon{}, errHash
	}
	return h, h.judge()
}

func (h argon) judge() error {
	switch {
	case h.memory < 8*uint32(h.lanes) || h.memory > maxMemory,
		h.time < 1 || h.time > maxTime,
		h.lanes < 1 || h.lanes > maxLanes:
		return fmt.Errorf("password is an argon2id hash with m=%d,t=%d,p=%d, at most m=%d,t=%d,p=%d is taken; make one with holdfast passwd",
			h.memory, h.time, h.lanes, maxMemory, maxTime, maxLanes)
	case len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64:
		return errHash
	}
	return nil
}
