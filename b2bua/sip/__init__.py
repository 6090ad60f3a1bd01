"""The SIP edge: the only importer of pjsua2. One thread owns every object in here."""
