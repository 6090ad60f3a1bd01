"""sealtrunk: a back-to-back user agent that lets only encrypted SIP trunks through and seals what it records."""
