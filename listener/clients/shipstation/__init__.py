"""ShipStation's V1 API ("ssapi")."""
