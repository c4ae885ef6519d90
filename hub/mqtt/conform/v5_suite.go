package conform

// suite5 is MQTT 5, the OASIS standard of 7 March 2019.
func suite5() Suite {
	return Suite{Name: "5", Version: v5}
}
