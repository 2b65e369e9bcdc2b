"use strict";
RK.start();
